"""Rows of the job board: memory and CPU of its processes, and its checkpoints."""

from grafana_foundation_sdk.models import units

from deploy.grafana.boards.expressions import increase, of_job, rate
from deploy.grafana.boards.frame import Row
from deploy.grafana.boards.panels import Series, graph

__all__ = ["checkpoints", "processes"]


def processes() -> Row:
    """Returns memory and CPU of the parameter server and the workers."""
    return Row(
        "Processes",
        [
            graph(
                "Memory by process", "Resident memory. It should be flat after the first epoch; with steady growth, "
                "the system kills the process in the end.", units.BytesIEC,
                Series(of_job("nablad_job_process_resident_memory_bytes"), "{{process}}"),
            ),
            graph(
                "CPUs by process", "CPU seconds per second. A worker far below its CPUs waits. One far below the "
                "others shares its machine with other work.", units.Number,
                Series(rate(of_job("nablad_job_process_cpu_seconds_total")), "{{process}}"),
            ),
        ],
    )  # fmt: skip


def checkpoints() -> Row:
    """Returns the work that a loss would repeat."""
    return Row(
        "Checkpoints",
        [
            graph(
                "Checkpoint age over time", "Should be a sawtooth below the interval. A line that only rises means "
                "that no checkpoint is written.", units.Seconds,
                Series(f"time() - {of_job('nablad_job_checkpoint_timestamp_seconds')}", "age"),
                Series(of_job("nablad_job_checkpoint_interval_seconds"), "interval"), span=8,
            ),
            graph(
                "Steps in the newest checkpoint", "A loss of the parameter server repeats the steps between the two "
                "lines.", units.Short,
                Series(of_job("nablad_job_step"), "done"),
                Series(of_job("nablad_job_checkpoint_step"), "in the checkpoint"), span=8,
            ),
            graph(
                "Checkpoints", "Per interval. A failure means that the disk is full or not usable; the job's events "
                "have the error.", units.Number,
                Series(increase(of_job("nablad_job_checkpoints_total")), "written"),
                Series(increase(of_job("nablad_job_checkpoint_failures_total")), "failed"), span=8,
            ),
        ],
    )  # fmt: skip
