"""Checks of job specs, beside the event loop: those of a large one take a good part of a second."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nablad.errors import Violation
from nablad.jobspec import complete, data_violations, merge, violations
from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb

__all__ = ["SpecChecks", "check_spec"]

_SMALL_BYTES: Final = 16 << 10


def check_spec(
    spec: spec_pb.JobSpec, sets: Mapping[str, datasets_pb.Dataset | None], found: Sequence[Violation]
) -> tuple[spec_pb.JobSpec, list[Violation]]:
    """Completes a spec, and says what is wrong with it.

    Args:
        spec: Is left as it is.
        sets: The data sets that it names, by their fields in `DataSpec`; None for those that there are not.
        found: What is known to be wrong already.

    Returns:
        The completed spec, and all violations.
    """
    train, validation = sets.get("train"), sets.get("validation")
    found = merge(violations(spec), found)
    completed = complete(spec, train)
    found = merge(found, violations(completed))
    if train:
        found = merge(found, data_violations(completed, train, validation))
    return completed, list(found)


class SpecChecks:
    """Two threads that check specs.

    One is for large specs, because several would take the interpreter from the event loop in turns. The other one is
    for small specs, which do not wait for large ones.
    """

    def __init__(self) -> None:
        """Starts no thread before it is needed."""
        self._small = ThreadPoolExecutor(1, "check-small-spec")
        self._large = ThreadPoolExecutor(1, "check-large-spec")

    async def check(
        self, spec: spec_pb.JobSpec, sets: Mapping[str, datasets_pb.Dataset | None], found: Sequence[Violation]
    ) -> tuple[spec_pb.JobSpec, list[Violation]]:
        """As `check_spec`."""
        thread = self._small if spec.ByteSize() <= _SMALL_BYTES else self._large
        return await asyncio.get_running_loop().run_in_executor(thread, check_spec, spec, sets, found)
