"""Fetches checkpoints from a parameter server and keeps them, one after the other, as long as the training goes on."""

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
from service.checkpoints.image import CheckpointError
from service.errors import AttemptLost
from workers.runtime.concurrency import on_thread, run_to_its_end

__all__ = ["Checkpointing"]

_log = logging.getLogger(__name__)

# A checkpoint that could not be written, or fetched, is followed by another try after so long.
_RETRY_SECONDS: Final = 2.0

Metadata = tuple[tuple[str, str], ...]


class Checkpointing:
    """The checkpoints of one attempt."""

    def __init__(
        self,
        stub: "ps_grpc.ParameterServerServiceAsyncStub",
        metadata: Metadata,
        folder: CheckpointFolder,
        attempt: int,
        told: Callable[[int], Awaitable[None]],
        written: Callable[[jobs_pb.Checkpoint, float], None],
        failed: Callable[[str], None],
    ) -> None:
        """What happened is told on the event loop.

        Args:
            stub: Of the parameter server.
            metadata: Of every call.
            folder: Where the checkpoints of the job lie.
            attempt: Number of the attempt.
            told: Waits until so many events are written down: a checkpoint counts only then, for who goes on from
                it is not told again what was before.
            written: Told each checkpoint that is safe, and the seconds that it took from its first byte on.
            failed: Told, as a sentence, that one could not be written.
        """
        self._stub = stub
        self._metadata = metadata
        self._folder = folder
        self._attempt = attempt
        self._told = told
        self._written = written
        self._failed = failed
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Keeps every checkpoint that is due; returns when the training is over."""
        while True:
            try:
                if await self._take(now=False) is None:
                    return
            except (OSError, sqlite3.Error, AttemptLost) as error:
                # A parameter server that is lost for good ends the attempt elsewhere.
                _log.warning("a checkpoint could not be kept, the next try follows: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def take(self) -> jobs_pb.Checkpoint | None:
        """Takes and keeps a checkpoint now; None when the training is over.

        Raises:
            AttemptLost: The parameter server does not answer.
            OSError: It cannot be written.
        """
        return await self._take(now=True)

    async def _take(self, *, now: bool) -> jobs_pb.Checkpoint | None:
        call = self._stub.FetchCheckpoint(ps_pb.FetchCheckpointRequest(now=now), metadata=self._metadata)
        try:
            messages = aiter(call)
            async for first in messages:
                async with self._writing:
                    checkpoint, seconds = await self._keep(first, messages)
                self._written(checkpoint, seconds)
                return checkpoint
        except (grpc.aio.AioRpcError, CheckpointError) as error:
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
            raise AttemptLost(f"the parameter server sent no checkpoint: {why}", cause="parameter_server") from error
        except asyncio.CancelledError:
            if not _cancelled():  # but the call is: its channel was closed
                raise AttemptLost("the attempt has ended meanwhile", cause="parameter_server") from None
            raise
        except OSError as error:
            self._failed(error.strerror or str(error))
            raise
        finally:
            call.cancel()
        return None

    async def _keep(
        self, first: ps_pb.FetchCheckpointResponse, messages: AsyncIterator[ps_pb.FetchCheckpointResponse]
    ) -> tuple[jobs_pb.Checkpoint, float]:
        """Writes a checkpoint, chunk by chunk on another thread; gives it and the seconds that it took."""
        clock = asyncio.get_running_loop().time
        start = clock()
        async with on_thread(self._folder.writing(first.state.step, self._attempt)) as writer:
            async for message in messages:
                await run_to_its_end(writer.write, message.chunk)
            await self._told(first.events)
        return writer.checkpoint, clock() - start


def _cancelled() -> bool:
    """Whether this task was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
