"""Rows of the job board: status and learning."""

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
    """Returns the status of the job in one line."""
    return Row(
        "Status",
        [
            stat(
                "Epoch", "Current epoch, and epochs that the job requests.", units.Number,
                Series(of_job("nablad_job_epoch"), "current"), Series(of_job("nablad_job_epochs"), "requested"),
            ),
            stat(
                "Progress", "Share of the planned steps. A job may stop earlier, at a target or by patience.",
                units.PercentUnit, Series(f"{_DONE} / {_PLANNED}", "done"),
            ),
            stat(
                "Time left", "Remaining steps divided by present steps per second. Empty while no steps are made.",
                units.DurationSeconds, Series(f"({_PLANNED} - {_DONE}) / ({_STEPS_PER_SECOND} > 0)", "left"),
            ),
            stat(
                "Samples/s", "Samples per second in the steps of this epoch. Compare it with jobs of the same network.",
                units.Short, Series(of_job("nablad_job_samples_per_second"), "samples/s"),
            ),
            stat(
                "Learning rate ε", "Factor of the gradient in an update.", units.Number,
                Series(of_job("nablad_job_learning_rate"), "ε"),
            ),
            stat(
                "Workers", "Live and requested workers. If workers are missing for more than a minute, check the "
                "cluster's free CPUs.", units.Number,
                Series(of_job("nablad_job_workers_alive"), "alive"), Series(of_job("nablad_job_workers"), "requested"),
            ),
            stat(
                "Attempt", "Number of times that the job's processes were launched. Losses, pauses and restarts of "
                "the service begin another attempt.", units.Number, Series(of_job("nablad_job_attempt"), "attempt"),
            ),
            stat(
                "Checkpoint age", "Work that a loss of the parameter server would repeat. It should stay below the "
                "interval that the job requests.", units.Seconds,
                Series(f"time() - {of_job('nablad_job_checkpoint_timestamp_seconds')}", "age"),
                limits=bad_from(1800, warning=600),
            ),
        ],
    )  # fmt: skip


# Descriptions with advice; other metrics have their help text.
_READINGS = {
    "cost": "Both should fall. If only the training cost falls, the network overfits. If both rise, or a line ends, "
    "ε is too large.",
    "accuracy": "Share of rows classified correctly. Training accuracy is measured before each update, so it may be "
    "below validation accuracy at first.",
}


def _metric(metric: LearningMetric) -> Panel:
    """Returns the graph of a metric over all sets of rows."""
    panel = graph(
        metric.name.capitalize(), _READINGS.get(metric.name, f"{metric.help}."),
        units.PercentUnit if metric.is_share else units.Number,
        *[Series(of_job(learning_metric_name(rows, metric)), rows) for rows in ROW_SETS],
    )  # fmt: skip
    return panel.max(1) if metric.is_share else panel


def learning() -> Row:
    """Returns the metrics of learning, the gradient norm and the learning rate."""
    panels = [
        *map(_metric, LEARNING_METRICS),
        graph(
            "Gradient norm", "Should fall slowly with the cost. Growth by orders of magnitude precedes a cost that is "
            "not finite.", units.Number, Series(of_job("nablad_job_gradient_norm"), "gradient"),
        ),
        graph(
            "Learning rate over time", "Should be the learning rate of the job file.", units.Number,
            Series(of_job("nablad_job_learning_rate"), "ε"),
        ),
    ]  # fmt: skip
    if len(panels) % 2:
        panels[-1].span(24)  # a line of its own
    return Row("Learning", panels)


def layers() -> Row:
    """Returns norms for each layer of weights and biases."""
    return Row(
        "Layers",
        [
            graph(
                "Gradient norm by layer", "A first layer far below the last one hardly learns. Other activations or "
                "larger first weights help.", units.Number,
                Series(of_job("nablad_job_layer_gradient_norm"), "layer {{layer}}"),
            ),
            graph(
                "Weight norm by layer", "If it grows without end, use a smaller ε.",
                units.Number, Series(of_job("nablad_job_layer_weight_norm"), "layer {{layer}}"),
            ),
        ],
    )  # fmt: skip
