"""Of the job board: where the job stands, and whether it learns."""

from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import of_job, rate
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, bad_from, graph, stat
from nablad.learning_metrics import LEARNING_METRICS, ROW_SETS, LearningMetric
from service.metrics.table import learning_metric_name

__all__ = ["headline", "layers", "learning"]

_DONE = of_job("nablad_job_step")
_PLANNED = of_job("nablad_job_planned_steps")
_STEPS_PER_SECOND = rate(of_job("nablad_job_steps_total"))


def headline() -> Row:
    """In one line, where the job stands."""
    return Row(
        "Where it stands",
        [
            stat(
                "Epoch", "The epoch that is being trained, and how many the job asks for.", units.Number,
                Series(of_job("nablad_job_epoch"), "begun"), Series(of_job("nablad_job_epochs"), "asked for"),
            ),
            stat(
                "Progress", "Steps done, of those planned. A job may stop earlier: at its target, or out of patience.",
                units.PercentUnit, Series(f"{_DONE} / {_PLANNED}", "done"),
            ),
            stat(
                "Time left", "Steps left over the present steps per second. No figure means that no steps are made.",
                units.DurationSeconds, Series(f"({_PLANNED} - {_DONE}) / ({_STEPS_PER_SECOND} > 0)", "left"),
            ),
            stat(
                "Samples/s", "Samples per second of this epoch's steps. Compare it with jobs of the same network.",
                units.Short, Series(of_job("nablad_job_samples_per_second"), "samples/s"),
            ),
            stat(
                "Learning rate ε", "The factor of the gradient in an update.", units.Number,
                Series(of_job("nablad_job_learning_rate"), "ε"),
            ),
            stat(
                "Workers", "Workers that are there, of those asked for. Fewer for longer than a minute: look at the "
                "cluster's free CPUs.", units.Number,
                Series(of_job("nablad_job_workers_alive"), "alive"), Series(of_job("nablad_job_workers"), "asked for"),
            ),
            stat(
                "Attempt", "Which launch of the job's processes this is. Losses, pauses and restarts of the service "
                "each begin another one.", units.Number, Series(of_job("nablad_job_attempt"), "attempt"),
            ),
            stat(
                "Checkpoint age", "How much work a loss of the parameter server would cost. It should stay within the "
                "interval that the job asks for.", units.Seconds,
                Series(f"time() - {of_job('nablad_job_checkpoint_timestamp_seconds')}", "age"),
                limits=bad_from(1800, warning=600),
            ),
        ],
    )  # fmt: skip


# What to read from the lines of a metric, where there is more to say than what it is.
_READINGS = {
    "cost": "Both should fall. Training falls while validation rises: the network learns by heart. Both rise, or a "
    "line breaks off: ε is too large.",
    "accuracy": "Share of rows that are classified right. Training is measured before each update, so it may lie below "
    "validation at first.",
}


def _metric(metric: LearningMetric) -> Panel:
    """A metric of learning, of all rows that it is known of."""
    panel = graph(
        metric.name.capitalize(), _READINGS.get(metric.name, f"{metric.help}."),
        units.PercentUnit if metric.is_share else units.Number,
        *[Series(of_job(learning_metric_name(rows, metric)), rows) for rows in ROW_SETS],
    )  # fmt: skip
    return panel.max(1) if metric.is_share else panel


def learning() -> Row:
    """Metrics of learning, and what moves the weights."""
    panels = [
        *map(_metric, LEARNING_METRICS),
        graph(
            "Gradient norm", "Should fall slowly while the cost does. Growth by orders of magnitude comes before a "
            "cost that is no number.", units.Number, Series(of_job("nablad_job_gradient_norm"), "gradient"),
        ),
        graph(
            "Learning rate over time", "It should be what the job file says.", units.Number,
            Series(of_job("nablad_job_learning_rate"), "ε"),
        ),
    ]  # fmt: skip
    if len(panels) % 2:
        panels[-1].span(24)  # a line of its own
    return Row("Does it learn?", panels)


def layers() -> Row:
    """Norms for each layer of weights and biases."""
    return Row(
        "Layers",
        [
            graph(
                "Gradient norm by layer", "A first layer far below the last one hardly learns: other activations or "
                "wider first weights help.", units.Number,
                Series(of_job("nablad_job_layer_gradient_norm"), "layer {{layer}}"),
            ),
            graph(
                "Weight norm by layer", "Steady growth without end calls for a penalty on the weights or a smaller ε.",
                units.Number, Series(of_job("nablad_job_layer_weight_norm"), "layer {{layer}}"),
            ),
        ],
    )  # fmt: skip
