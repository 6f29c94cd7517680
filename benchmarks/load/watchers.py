"""A process full of watchers: ``python -m benchmarks.load.watchers``; crowd.py starts it and reads what it says.

It steps aside for everybody else (nice 19). Once all watchers have heard something it says ``ready``; when its standard
input ends it says what they have heard, as JSON, and ends.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field

import click
import grpc

from nablad.v1 import jobs_pb2, jobs_pb2_grpc

__all__ = ["Heard"]

_CHANNELS = 4
# Else channels to the same address would share a connection.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
# Next to nothing is received before it is asked for: who never reads is felt by the service at once.
_RECEIVES_LITTLE = (*_OWN_CONNECTION, ("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


@dataclass
class Heard:
    """Events that the watchers of a process have received.

    Attributes:
        messages: In all.
        events: In all.
        gaps: Events that did not have the number after that of the one before.
        endings: Watches that ended before they were given up, by what they ended with.
    """

    messages: int = 0
    events: int = 0
    gaps: int = 0
    endings: Counter[str] = field(default_factory=Counter)


@click.command()
@click.argument("address")
@click.argument("job_id")
@click.argument("from_event", type=int)
@click.argument("readers", type=int)
@click.argument("silent", type=int)
def main(address: str, job_id: str, from_event: int, readers: int, silent: int) -> None:
    """Watch a job: so many READERS from an event on, and so many from its beginning that never read."""
    os.nice(19)
    heard = asyncio.run(_watch(address, job_id, from_event, readers, silent))
    print(json.dumps(asdict(heard)), flush=True)


async def _watch(address: str, job_id: str, from_event: int, readers: int, silent: int) -> Heard:
    heard = Heard()
    stubs = [_stub(address, _OWN_CONNECTION) for _ in range(_CHANNELS)]
    calls = [stubs[n % _CHANNELS].WatchJob(_request(job_id, from_event)) for n in range(readers)]
    begun = [asyncio.Event() for _ in calls]
    tasks = [
        asyncio.create_task(_read(call, from_event, heard, first)) for call, first in zip(calls, begun, strict=True)
    ]
    deaf = _stub(address, _RECEIVES_LITTLE)
    unread = [deaf.WatchJob(_request(job_id, 1)) for _ in range(silent)]
    await asyncio.gather(*(first.wait() for first in begun), *(call.wait_for_connection() for call in unread))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for call in [*calls, *unread]:
        call.cancel()
    await asyncio.gather(*tasks)
    return heard


def _stub(address: str, options: "tuple[tuple[str, int], ...]") -> "jobs_pb2_grpc.JobServiceAsyncStub":
    return jobs_pb2_grpc.JobServiceStub(grpc.aio.insecure_channel(address, options))


def _request(job_id: str, from_event: int) -> jobs_pb2.WatchJobRequest:
    return jobs_pb2.WatchJobRequest(job_id=job_id, from_event=from_event)


async def _read(
    call: "grpc.aio.UnaryStreamCall[jobs_pb2.WatchJobRequest, jobs_pb2.WatchJobResponse]",
    coming: int,
    heard: Heard,
    first: asyncio.Event,
) -> None:
    """Reads until the call is given up, or ends by itself."""
    try:
        async for response in call:
            first.set()
            heard.messages += 1
            for event in response.events:
                heard.events += 1
                heard.gaps += event.number != coming
                coming = event.number + 1
        heard.endings["the job's end"] += 1
    except grpc.aio.AioRpcError as error:
        heard.endings[f"{error.code().name}: {error.details()}"] += 1
    except asyncio.CancelledError:
        return
    finally:
        first.set()


if __name__ == "__main__":
    main()
