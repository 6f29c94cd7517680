"""Of the job board: memory and CPU of its processes, and its checkpoints."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_job, rate
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, graph

__all__ = ["checkpoints", "processes"]


def processes() -> Row:
    """The parameter server and the workers, wherever they run."""
    return Row(
        "Processes",
        [
            graph(
                "Memory by process", "Resident memory. Flat after the first epoch is good; steady growth ends in a "
                "process that the system kills.", units.BytesIEC,
                Series(of_job("nablad_job_process_resident_memory_bytes"), "{{process}}"),
            ),
            graph(
                "CPUs by process", "CPU seconds per second. A worker far below its CPUs waits; far below the others, "
                "its machine is busy with something else.", units.Number,
                Series(rate(of_job("nablad_job_process_cpu_seconds_total")), "{{process}}"),
            ),
        ],
    )  # fmt: skip


def checkpoints() -> Row:
    """How much would be done again after a loss."""
    return Row(
        "Checkpoints",
        [
            graph(
                "Checkpoint age over time", "Saw teeth that stay below the interval, which is there if the job asks "
                "for one by time. A line that only rises: nothing is written.", units.Seconds,
                Series(f"time() - {of_job('nablad_job_checkpoint_timestamp_seconds')}", "age"),
                Series(of_job("nablad_job_checkpoint_interval_seconds"), "interval"), span=8,
            ),
            graph(
                "Steps in the newest checkpoint", "The distance of the lines is what a loss of the parameter server "
                "would cost.", units.Short,
                Series(of_job("nablad_job_step"), "done"),
                Series(of_job("nablad_job_checkpoint_step"), "in the checkpoint"), span=8,
            ),
            graph(
                "Checkpoints", "Within each interval. Any failure: the disk is full or does not answer, and the job's "
                "events say which.", units.Number,
                Series(increase(of_job("nablad_job_checkpoints_total")), "written"),
                Series(increase(of_job("nablad_job_checkpoint_failures_total")), "failed"), span=8,
            ),
        ],
    )  # fmt: skip
