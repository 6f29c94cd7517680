"""Two hosts with a wire between them: whatever happens to the wire, a job computes what it would on one host.

The jobs have no end of their own, because workers that are on one host make so many more steps per second than those
that wait for a wire. They are cancelled, and the weights after every epoch that they came to are compared, bit for bit.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.v1 import jobs_pb2 as jobs_pb
from tests.harness.cluster import Cluster, Setup
from tests.harness.hosts import Host, what_is_missing
from tests.harness.processes import wait_until_gone

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

OneHost = Callable[[int], list[str]]

DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"
WORKERS = 3
# One micro-batch of each step for each worker; a checkpoint is due after each epoch.
JOB_FILE = """
name: two-hosts
data: {{train: digits, scaling: standard}}
model: {{layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid}}
cost: {{function: log_loss}}
training: {{epochs: {epochs}, batch_size: 50, learning_rate: 0.5, seed: 11}}
distribution: {{workers: 3, micro_batches: 3}}
checkpoints: {{every_epochs: 1}}
"""
EPOCH_STEPS = 29
ENDLESS = 1_000_000
ONE_WAY_SECONDS = 0.025
# No more come out of steps of 50 samples that each wait for the way there and back.
MOST_SAMPLES_PER_SECOND = 50 / (2 * ONE_WAY_SECONDS)
CUT_SECONDS = 20.0
END_SECONDS = 60.0
FLEET = "_WorkerProcess|_ParameterServerProcess"

# The first worker, and with it the parameter server, is placed where most CPUs are free.
SERVER_NEAR = Setup(near_cpus=2, far_cpus=1)
# Ray gives up a host that leaves four questions, one second apart, without an answer for two seconds each.
SERVER_FAR_RAY_IMPATIENT = Setup(
    near_cpus=1,
    far_cpus=2,
    ray={
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "4",
    },
)


class Joined(NamedTuple):
    """A worker, as the event of its arrival tells of it."""

    pid: int
    host: str
    transport: str


@dataclass
class Watched:
    """A job, as far as it has been watched.

    Attributes:
        news: What comes of it.
        progress: Where its training is.
        state: Where the job is.
        present: The workers of this attempt that have joined and are not lost, by name.
        checkpoints: How many were told of.
        notices: What else was told.
    """

    client: Client
    job_id: str
    news: Iterator[jobs_pb.Event | jobs_pb.Progress | jobs_pb.Waiting]
    progress: jobs_pb.Progress = field(default_factory=jobs_pb.Progress)
    state: int = 0
    present: dict[str, Joined] = field(default_factory=dict)
    checkpoints: int = 0
    notices: list[str] = field(default_factory=list)

    def until(self, reached: Callable[[], bool]) -> None:
        """Watches until it has come to this, which it has to before it ends."""
        for news in self.news:
            self._note(news)
            if reached():
                return
        job = self.client.job(self.job_id)
        pytest.fail(f"the job ended before: {job.reason}\n{job.last_error_lines}")

    def until_all_are_present(self) -> None:
        """Watches until every worker has joined."""
        self.until(lambda: len(self.present) == WORKERS)

    def until_it_made_an_epoch(self) -> None:
        """Watches until it has made all steps of an epoch, from what is told next."""
        self.progress = jobs_pb.Progress()
        self.until(lambda: self.progress.step > 0)
        steps = self.progress.step + 2 * EPOCH_STEPS
        self.until(lambda: self.progress.step >= steps)

    def until_it_waits_for_the_wire(self) -> None:
        """Watches until the steps of an epoch took as long as they must if each went over a slow wire."""
        self.progress = jobs_pb.Progress()
        self.until(lambda: 0 < self.progress.samples_per_second < MOST_SAMPLES_PER_SECOND)

    def on(self, host: Host) -> list[Joined]:
        """The workers that are present there."""
        return [worker for worker in self.present.values() if worker.host == host.identity]

    def epochs(self) -> list[jobs_pb.HistoryPoint]:
        """The figures of each epoch."""
        return list(self.client.history(self.job_id))

    def _note(self, news: jobs_pb.Event | jobs_pb.Progress | jobs_pb.Waiting) -> None:
        if isinstance(news, jobs_pb.Progress):
            self.progress = news
        elif isinstance(news, jobs_pb.Waiting):
            return
        elif told := re.match(r"(\S+) joined: process (\d+) on \S+/(net:\S+), transport (\w+)", news.message):
            worker, pid, host, transport = told.groups()
            self.present[worker] = Joined(int(pid), host, transport)
        elif told := re.match(r"(\S+) was lost", news.message):
            del self.present[told.group(1)]
        elif news.WhichOneof("what") == "checkpoint":
            self.checkpoints += 1
        elif news.WhichOneof("what") == "notice":
            self.notices.append(news.message)
        elif news.WhichOneof("what") == "state":
            self.state = news.state
            if self.state == jobs_pb.JOB_STATE_QUEUED:
                self.present.clear()


def _submit(client: Client, epochs: int) -> Watched:
    if "digits" not in {dataset.name for dataset in client.datasets()}:
        client.add_dataset("digits", [DIGITS])
    spec, violations = parse(JOB_FILE.format(epochs=epochs))
    assert not violations, violations
    job_id = client.submit(spec).job_id
    return Watched(client, job_id, client.watch(job_id))


@pytest.fixture(scope="module")
def one_host(daemon: Any) -> OneHost:
    """The weights after each of so many epochs, where all processes are on one host and nothing happens to them."""
    known: list[str] = []

    def run(epochs: int) -> list[str]:
        if len(known) < epochs:
            with Client(daemon.address) as client:
                job = _submit(client, epochs)
                job.until(lambda: job.state == jobs_pb.JOB_STATE_SUCCEEDED)
                known[:] = [epoch.weights_sha256 for epoch in job.epochs()]
        return known[:epochs]

    return run


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two hosts, set up as a test asks for."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with Cluster(request.param) as cluster:
        yield cluster
        assert cluster.service.stop() == 0, cluster.service.log_file.read_text()[-5000:]


@pytest.fixture
def running(cluster: Cluster, one_host: OneHost) -> Iterator[Watched]:
    """A job at work on both hosts; at the end its processes go, and its weights are those that they have to be."""
    cluster.hosts.wire.delay_seconds = 0.0
    with Client(cluster.service.address) as client:
        job = _submit(client, ENDLESS)
        job.until_all_are_present()
        yield job
        client.cancel(job.job_id)
        weights = [epoch.weights_sha256 for epoch in job.epochs()]
    wait_until_gone(cluster.service.processes(), FLEET)
    assert weights == one_host(len(weights))


@contextmanager
def _cut(cluster: Cluster) -> Iterator[None]:
    """The wire is cut for so long, and for the block."""
    mended = time.monotonic() + CUT_SECONDS
    cluster.hosts.cut()
    yield
    # How long the cut takes is what is tried.
    time.sleep(max(mended - time.monotonic(), 0))
    cluster.hosts.mend()


server_near = pytest.mark.parametrize("cluster", [SERVER_NEAR], indirect=True, ids=["server-near"])
server_far = pytest.mark.parametrize("cluster", [SERVER_FAR_RAY_IMPATIENT], indirect=True, ids=["server-far"])


@server_near
def test_a_far_worker_shares_no_memory(cluster: Cluster, running: Watched) -> None:
    """Its weights and gradients go over the wire, those of the near ones do not, and the job makes its steps."""
    assert [worker.transport for worker in running.on(cluster.hosts.near)] == ["shared"] * 2
    assert [worker.transport for worker in running.on(cluster.hosts.far)] == ["inline"]
    running.until_it_made_an_epoch()


@server_near
def test_a_slow_wire_makes_every_step_wait(cluster: Cluster, running: Watched) -> None:
    """No step takes less than the way there and back."""
    cluster.hosts.wire.delay_seconds = ONE_WAY_SECONDS
    running.until_it_waits_for_the_wire()
    since = running.progress.epoch
    running.until_it_made_an_epoch()
    rates = [epoch.samples_per_second for epoch in running.epochs() if epoch.epoch > since]
    assert 0 < max(rates) < MOST_SAMPLES_PER_SECOND


@server_near
def test_a_worker_that_was_cut_off_joins_again(cluster: Cluster, running: Watched) -> None:
    """The same process, in the same attempt; the others go on meanwhile."""
    cluster.hosts.wire.delay_seconds = ONE_WAY_SECONDS
    running.until_it_waits_for_the_wire()
    (far,) = running.on(cluster.hosts.far)
    with _cut(cluster):
        running.until(lambda: not running.on(cluster.hosts.far))
        running.until_it_made_an_epoch()
    running.until(lambda: running.on(cluster.hosts.far) == [far])
    running.until_it_waits_for_the_wire()
    assert running.client.job(running.job_id).attempt == 1


@server_far
def test_a_job_whose_parameter_server_was_cut_off_goes_on_when_there_are_hosts_again(
    cluster: Cluster, running: Watched
) -> None:
    """Ray gives the far host up, and everything there ends; a new node brings its CPUs back."""
    cluster.hosts.wire.delay_seconds = ONE_WAY_SECONDS
    assert [worker.transport for worker in running.on(cluster.hosts.far)] == ["shared"] * 2
    running.until_it_waits_for_the_wire()
    running.until(lambda: running.checkpoints > 0)
    with _cut(cluster):
        running.until(lambda: running.state == jobs_pb.JOB_STATE_QUEUED)
    assert cluster.far_node.wait(END_SECONDS) != 0
    cluster.start_far_node()
    running.until_all_are_present()
    running.until_it_waits_for_the_wire()
    assert running.client.job(running.job_id).attempt == 2
    assert any("goes on from the checkpoint" in notice for notice in running.notices)
