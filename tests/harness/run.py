"""One disturbed job: what a scenario does to it, and with what."""

import random
import signal
import time
from uuid import uuid4

from nablad.errors import UnavailableError
from nablad.v1 import jobs_pb2
from tests.harness import HarnessError
from tests.harness.fuses import Fuse
from tests.harness.processes import send
from tests.harness.service import Service
from tests.harness.trace import Trace
from tests.harness.works import Work

__all__ = ["Run"]

_LOOK_SECONDS = 0.01
_SUBMIT_SECONDS = 60.0
_BEGIN_SECONDS = 60.0
# Faults come in this part of a job, so that they find it at work.
_EARLIEST, _LATEST = 0.02, 0.6


class Run:
    """A job of a service, and the faults that it meets.

    Attributes:
        service: Where it runs.
        work: What it does.
        seed: Of everything that is drawn.
        draw: For what a scenario draws.
        trace: What is seen of it; once it is submitted.
        faults: How many were injected.
        broken: Promises of its own that the scenario has seen broken, as sentences.
    """

    trace: Trace

    def __init__(self, service: Service, work: Work, seed: int, draw: random.Random) -> None:
        self.service = service
        self.work = work
        self.seed = seed
        self.draw = draw
        self.name = f"seed-{seed}-{uuid4().hex[:8]}"
        self.faults = 0
        self.broken: list[str] = []

    def submit(self) -> None:
        """Until it is acknowledged; when the service dies over it, it is started again and asked again."""
        spec, request_id = self.work.spec(self.name), str(uuid4())
        deadline = time.monotonic() + _SUBMIT_SECONDS
        while True:
            try:
                job = self.service.client.submit(spec, request_id=request_id)
                break
            except UnavailableError as error:
                if not self.service.wait_until_dead(1.0):
                    if time.monotonic() > deadline:
                        raise HarnessError(f"The service does not answer: {error}") from error
                    continue
                self.service.restart()
        self.trace = Trace(self.service.client.address, job.job_id)

    def wait_for_moment(self, latest: float = _LATEST) -> bool:
        """Waits until a drawn part of the steps is made; gives False if the job ended before."""
        return self.wait_for_step(round(self.draw.uniform(_EARLIEST, latest) * self.work.arithmetic.steps))

    def wait_for_step(self, step: int) -> bool:
        """Waits until so many steps are made; gives False if the job ended before."""
        return self.trace.wait_for(lambda: self.trace.step >= step, _BEGIN_SECONDS)

    def wait_for_state(self, state: jobs_pb2.JobState.ValueType, seconds: float = _BEGIN_SECONDS) -> bool:
        """Waits until the newest state that was told of is this one."""
        return self.trace.wait_for(lambda: self.state == state, seconds)

    @property
    def state(self) -> jobs_pb2.JobState.ValueType:
        """The newest that was told of."""
        states = [event.state for event in self.trace.events if event.WhichOneof("what") == "state"]
        return states[-1] if states else jobs_pb2.JOB_STATE_UNSPECIFIED

    def wait_for_checkpoints(self, count: int) -> bool:
        """Waits until so many were told of; gives False if the job ended before."""
        return self.trace.wait_for(lambda: len(self.checkpoint_events()) >= count, _BEGIN_SECONDS)

    def checkpoint_events(self) -> list[jobs_pb2.Event]:
        """Events of checkpoints."""
        return [event for event in self.trace.events if event.WhichOneof("what") == "checkpoint"]

    def inject(self, number: signal.Signals, pids: set[int]) -> None:
        """Sends a signal to processes, and counts it as one fault if any was there."""
        self.faults += send(number, pids) > 0

    def wait_until_blown(self, fuse: Fuse) -> bool:
        """Waits until a process has failed at an armed failpoint, and counts it; False if the job ended before."""
        fuses = self.service.fuses
        while not fuses.has_blown(fuse) and not self.trace.wait_until_ended(_LOOK_SECONDS):
            pass
        blown = fuses.has_blown(fuse)
        fuses.disarm(fuse)
        self.faults += blown
        return blown

    def kill_service(self) -> None:
        """SIGKILL; the processes that it started must end by themselves."""
        self.service.daemon.kill()
        self.faults += 1
