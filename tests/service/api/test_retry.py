"""RetryJob says what to expect of the attempt."""

from types import SimpleNamespace
from typing import Any, cast

from nablad.v1 import jobs_pb2 as jobs_pb
from service.api.jobs import JobServicer
from service.events.job_events import WaitingExplained
from service.events.live_status import LiveStatus

EXPECTED = "tried again by a client, and will end the same way unless the cause was removed: waits for its turn"


async def _no_nodes() -> None:
    return None


async def test_the_answer_says_what_to_expect_also_of_a_job_that_must_wait() -> None:
    """Why it waits is told by every later answer; how it must end, by none."""

    async def scene() -> str:
        live = LiveStatus(lambda: 0.0)

        def retry(job_id: str) -> jobs_pb.Job:
            live.receive(WaitingExplained(job_id, "waits for free CPUs, for 2 workers with 1 CPU each"))
            return jobs_pb.Job(job_id=job_id, state=jobs_pb.JOB_STATE_QUEUED, reason=EXPECTED)

        none = cast("Any", None)
        controller = cast("Any", SimpleNamespace(commands=SimpleNamespace(retry=retry)))
        nodes = cast("Any", SimpleNamespace(get_nodes=_no_nodes))
        servicer = JobServicer(none, none, live, none, controller, none, nodes)
        answer = await servicer.RetryJob(jobs_pb.RetryJobRequest(job_id="a"), none)
        return answer.job.reason

    assert (await scene()) == EXPECTED
