"""The command `nabla`, run against the scripted service."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from nablad.cli import main
from nablad.v1 import job_spec_pb2, jobs_pb2
from nablad.v1.metrics_pb2 import Metrics


@pytest.fixture
def nabla(service) -> Callable[..., Result]:
    """Runs `nabla` with some arguments; the service is the scripted one."""

    def run(*arguments: str, stdin: str | None = None, address: str | None = None) -> Result:
        environment = {"NABLA_SERVER": address or service.address}
        return CliRunner().invoke(main, arguments, input=stdin, env=environment)

    return run


@pytest.fixture
def digits_job() -> jobs_pb2.Job:
    """A job in its second epoch."""
    spec = job_spec_pb2.JobSpec(name="digits", training=job_spec_pb2.TrainingSpec(epochs=60), priority=5)
    job = jobs_pb2.Job(job_id="digits-1f", spec=spec, state=jobs_pb2.JOB_STATE_RUNNING, reason="steps are being made")
    job.create_time.FromSeconds(1_700_000_000)
    progress = jobs_pb2.Progress(epoch=2, epochs=60, step=50, steps=2700, training=Metrics(cost=1.5, accuracy=0.75))
    job.progress.CopyFrom(progress)
    return job
