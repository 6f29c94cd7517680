"""The job board: does it learn, how fast, where does the time go, and what happened to it?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import frame, job_learning, job_processes, job_steps, job_workers, variables
from deploy.grafana.boards.annotations import of_job_events

__all__ = ["board"]


def board() -> Dashboard:
    """From what one looks at first to what one looks at when something is wrong."""
    return frame.assemble(
        frame.JOB,
        [variables.data_source(), variables.instance(), variables.job_id()],
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
