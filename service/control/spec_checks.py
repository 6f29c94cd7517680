"""Checks of job specs beside the event loop: the check of a large one takes a good part of a second."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nablad.jobspec import Checked, JobDatasets, check
from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["SpecChecks"]

_SMALL_BYTES: Final = 16 << 10


class SpecChecks:
    """Two threads that check specs.

    One is for large specs, because several of them would take the interpreter from the event loop in turns. The other
    one is for small specs, so that they do not wait for large ones.
    """

    def __init__(self) -> None:
        """Starts no thread before it is needed."""
        self._small = ThreadPoolExecutor(1, "check-small-spec")
        self._large = ThreadPoolExecutor(1, "check-large-spec")

    async def check(self, spec: spec_pb.JobSpec, datasets: JobDatasets) -> Checked:
        """Returns `check(spec, datasets)`; neither may change meanwhile."""
        thread = self._small if spec.ByteSize() <= _SMALL_BYTES else self._large
        return await asyncio.get_running_loop().run_in_executor(thread, check, spec, datasets)
