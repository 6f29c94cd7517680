"""Job board: learning, speed, time of steps, workers, processes and checkpoints of one job."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, job_learning, job_processes, job_steps, job_workers
from deploy.grafana.boards.annotations import of_job_events

__all__ = ["board"]


def board() -> Dashboard:
    """Returns the board, the most important rows first."""
    return frame.assemble(
        frame.JOB,
        [frame.data_source(), frame.instance(), frame.job_id()],
        [
            job_learning.headline(),
            job_learning.learning(),
            job_learning.layers(),
            job_steps.speed(),
            job_steps.anatomy(),
            job_steps.activities(),
            job_workers.stragglers(),
            job_workers.membership(),
            job_processes.processes(),
            job_processes.checkpoints(),
        ],
        of_job_events(),
    )
