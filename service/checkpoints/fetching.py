"""Checkpoint fetcher: fetches checkpoints from a parameter server and writes them, as long as the training runs."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import grpc

from nablad.v1 import jobs_pb2 as jobs_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1 import parameter_server_pb2_grpc as ps_grpc
from service.checkpoints.folder import CheckpointFolder
from service.errors import AttemptLost, CheckpointError
from workers.runtime.concurrency import on_thread, run_to_its_end

__all__ = ["CheckpointFetcher"]

_log = logging.getLogger(__name__)

# Pause after a checkpoint that could not be fetched or written.
_RETRY_SECONDS: Final = 2.0

Metadata = tuple[tuple[str, str], ...]


class CheckpointFetcher:
    """Fetches the checkpoints of one attempt."""

    def __init__(
        self,
        stub: "ps_grpc.ParameterServerServiceAsyncStub",
        metadata: Metadata,
        folder: CheckpointFolder,
        attempt: int,
        wait_until_written: Callable[[int], Awaitable[None]],
        written: Callable[[jobs_pb.Checkpoint, float], None],
        failed: Callable[[str], None],
    ) -> None:
        """The callbacks run on the event loop.

        Args:
            stub: Stub of the parameter server.
            metadata: Metadata of every call.
            folder: Folder of the job's checkpoints.
            attempt: Number of the attempt.
            wait_until_written: Waits until so many events are written. A checkpoint is valid only then, because an
                attempt that starts from it does not report earlier events again.
            written: Called with each checkpoint that is on the disk, and the seconds since its first byte.
            failed: Called with a sentence if a checkpoint could not be written.
        """
        self._stub = stub
        self._metadata = metadata
        self._folder = folder
        self._attempt = attempt
        self._wait_until_written = wait_until_written
        self._written = written
        self._failed = failed
        self._writing = asyncio.Lock()
        self._newest: jobs_pb.Checkpoint | None = None  # by step, of those that were written

    async def run(self) -> None:
        """Fetches and writes every checkpoint that is due. Returns when the training is over."""
        while True:
            try:
                if await self._fetch(now=False) is None:
                    return
            except (OSError, sqlite3.Error, AttemptLost) as error:
                # If the parameter server is lost for good, the follower ends the attempt.
                _log.warning("could not fetch a checkpoint, will try again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def fetch_now(self) -> jobs_pb.Checkpoint | None:
        """Fetches and writes a checkpoint now.

        Returns:
            The newest checkpoint, which the job goes on from: one that was due meanwhile may be of a later step. None
            if the training is over.

        Raises:
            AttemptLost: The parameter server does not answer.
            OSError: The checkpoint cannot be written.
        """
        return self._newest if await self._fetch(now=True) else None

    async def _fetch(self, *, now: bool) -> jobs_pb.Checkpoint | None:
        call = self._stub.FetchCheckpoint(ps_pb.FetchCheckpointRequest(now=now), metadata=self._metadata)
        try:
            messages = aiter(call)
            async for first in messages:
                async with self._writing:
                    checkpoint, seconds = await self._write(first, messages)
                    if self._newest is None or self._newest.step < checkpoint.step:
                        self._newest = checkpoint
                self._written(checkpoint, seconds)
                return checkpoint
        except (grpc.aio.AioRpcError, CheckpointError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            raise AttemptLost(f"the parameter server sent no checkpoint: {why}", cause="parameter_server") from error
        except asyncio.CancelledError:
            if not _cancelled():  # only the call was cancelled, because its channel was closed
                raise AttemptLost("the attempt has ended meanwhile", cause="parameter_server") from None
            raise
        except OSError as error:
            self._failed(error.strerror or str(error))
            raise
        finally:
            call.cancel()
        return None

    async def _write(
        self, first: ps_pb.FetchCheckpointResponse, messages: AsyncIterator[ps_pb.FetchCheckpointResponse]
    ) -> tuple[jobs_pb.Checkpoint, float]:
        """Writes a checkpoint chunk by chunk on another thread. Returns it, and the seconds that it took."""
        clock = asyncio.get_running_loop().time
        start = clock()
        async with on_thread(self._folder.writing(first.state.step, self._attempt)) as writer:
            async for message in messages:
                await run_to_its_end(writer.write, message.chunk)
            await self._wait_until_written(first.events)
        return writer.checkpoint, clock() - start


def _cancelled() -> bool:
    """Returns whether this task was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
