"""Clients submit jobs at once while the service is killed: ``python -m tests.harness.submissions``."""

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Event as Flag
from uuid import UUID

import click

from nablad import Client
from nablad.errors import UnavailableError
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.invariants import Outcome, outcome_of
from tests.harness.report import RESULTS, machine, table
from tests.harness.service import Service
from tests.harness.works import Arithmetic, Work

__all__ = ["Storm", "reference_of", "weather"]

CLIENTS = 20
# Twenty jobs are accepted in about this time.
_SUBMITTING_SECONDS = 0.25
_RETRY_SECONDS = 0.05
_PATIENCE_SECONDS = 120.0
_WORK = Work(Arithmetic("momentum", 80), checkpoints="every_seconds: 0.2")
_EPOCHS = 3


@dataclass(frozen=True)
class Storm:
    """Storm of submissions around one kill.

    Attributes:
        seed: Repeats what was drawn.
        acknowledged: Jobs that a client had been told of when the service was killed.
        attempts: Of all jobs together.
        seconds: From the first submission to the last job's end.
        broken: Sentences on what does not hold.
    """

    seed: int
    acknowledged: int
    attempts: int
    seconds: float
    broken: list[str]


def weather(service: Service, reference: Outcome, seed: int, clients: int = CLIENTS) -> Storm:
    """Clients submit at once, the service is killed and started again, and every job must end as the reference did."""
    draw = random.Random(f"submissions {seed}")  # a seed repeats a run
    requests = [str(UUID(int=draw.getrandbits(128), version=4)) for _ in range(clients)]
    from_s = time.monotonic()
    told: dict[str, set[str]] = {request: set() for request in requests}
    with _submitting(service.daemon.address, told):
        time.sleep(draw.uniform(0, _SUBMITTING_SECONDS * clients / CLIENTS))
        service.daemon.kill()
        acknowledged = [job_id for answers in told.values() for job_id in answers]
        service.restart()
    jobs = {job.job_id: job for job in service.client.jobs() if job.job_id in set().union(*told.values())}
    broken = [f"job {job_id} was acknowledged and is gone" for job_id in acknowledged if job_id not in jobs]
    broken += [f"request {request} made {len(made)} jobs" for request, made in told.items() if len(made) != 1]
    ended = [_end(service.client, job_id) for job_id in jobs]
    broken += [sentence for job in ended for sentence in _complaints(service, job, reference)]
    seconds = time.monotonic() - from_s
    return Storm(seed, len(acknowledged), sum(job.attempt for job in ended), round(seconds, 2), broken)


@contextmanager
def _submitting(address: str, told: dict[str, set[str]]) -> Iterator[None]:
    """Every request is sent until it is answered, by a client each, and once more when all are."""
    spec = _WORK.spec("storm")
    spec.training.epochs = _EPOCHS
    begin = Flag()

    def submit(request: str) -> None:
        with Client(address, timeout_s=5) as client:
            begin.wait()
            give_up_s = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    told[request].add(client.submit(spec, request_id=request).job_id)
                except UnavailableError:
                    if time.monotonic() > give_up_s:
                        raise
                    time.sleep(_RETRY_SECONDS)
                else:
                    return

    with ThreadPoolExecutor(len(told)) as pool:
        submissions = [pool.submit(submit, request) for request in told]
        begin.set()
        yield
        for submission in submissions:
            submission.result()
        for again in [pool.submit(submit, request) for request in told]:
            again.result()


def _end(client: Client, job_id: str) -> jobs_pb.Job:
    for _ in client.watch(job_id):
        pass
    return client.job(job_id)


def _complaints(service: Service, job: jobs_pb.Job, reference: Outcome) -> list[str]:
    """Lists what is wrong with a job that has ended."""
    events = [news for news in service.client.watch(job.job_id) if isinstance(news, jobs_pb.Event)]
    ends = [event for event in events if event.state == jobs_pb.JOB_STATE_SUCCEEDED]
    starts = [event for event in events if event.state == jobs_pb.JOB_STATE_STARTING]
    found = []
    if len(ends) != 1 or events[-1] != ends[-1]:
        found.append(f"job {job.job_id} has {len(ends)} successful ends: {job.reason}")
    if len(starts) != job.attempt or [event.number for event in events] != list(range(1, len(events) + 1)):
        found.append(f"the events of job {job.job_id} have gaps, or attempts that nobody counted")
    if found:
        return found
    outcome = outcome_of(service, job)
    same = outcome.model_sha256 == reference.model_sha256
    return [*outcome.differences(reference), *([] if same else [f"the weights of job {job.job_id} are others"])]


def reference_of(service: Service) -> Outcome:
    """Returns the outcome of such a job if nothing happens to it."""
    spec = _WORK.spec("calm")
    spec.training.epochs = _EPOCHS
    return outcome_of(service, _end(service.client, service.client.submit(spec).job_id))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the first kill; each further one has the next.")
def main(kills: int, seed: int) -> None:
    """Kill the service while clients submit jobs, again and again, and look whether anything is lost."""
    storms = []
    with Service() as service:
        reference = reference_of(service)
        for number in range(seed, seed + kills):
            storms.append(weather(service, reference, number))
            click.echo(str(storms[-1]))
    click.echo(text := _markdown(storms))
    (RESULTS / "submissions.md").write_text(text + "\n", encoding="utf-8")
    described = {
        "machine": machine(),
        "storms": [asdict(storm) for storm in storms],
    }
    (RESULTS / "submissions.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    if any(storm.broken for storm in storms):
        raise click.ClickException("something was lost")


def _markdown(storms: list[Storm]) -> str:
    acknowledged = [storm.acknowledged for storm in storms]
    rows = [
        ("kills of the service while 20 clients submit", str(len(storms))),
        ("jobs", str(len(storms) * CLIENTS)),
        ("acknowledged when the service was killed", f"{min(acknowledged)} to {max(acknowledged)} of {CLIENTS}"),
        ("attempts", str(sum(storm.attempts for storm in storms))),
        ("lost, doubled, or with other weights", str(sum(len(storm.broken) for storm in storms))),
    ]
    day = datetime.now(UTC).date().isoformat()
    return f"# Submissions\n\nMade on {day} by `make robustness`.\n\n" + table(["", ""], rows)


if __name__ == "__main__":
    main()
