"""Job files on their way to the service."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from nablad.errors import InvalidRequestError, UnavailableError, Violation
from nablad.files import naming
from nablad.jobspec import check, merge
from nablad.jobspec.job_file import MAXIMUM_BYTES, parse
from nablad.v1.job_spec_pb2 import JobSpec

if TYPE_CHECKING:
    from nablad.client import Client


def read_job_file(file: BinaryIO, client: "Client", priority: int | None = None) -> JobSpec:
    """The spec in a job file.

    Args:
        file: The job file.
        client: Whom to ask what else is wrong, when something is.
        priority: In place of the file's.

    Raises:
        InvalidRequestError: It breaks rules. Carries also what the service finds in it: all can be mended at once.
    """
    with naming(getattr(file, "name", "<stdin>")):
        content = file.read(MAXIMUM_BYTES + 1)
    spec, unread = parse(content)
    if priority is not None:
        spec.priority = priority
    known = check(spec, unread=unread).violations
    if known:
        raise InvalidRequestError("The job file has mistakes.", merge(known, _found_by_service(spec, client)))
    return spec


def _found_by_service(spec: JobSpec, client: "Client") -> Sequence[Violation]:
    """What the service does not like about a spec: it also knows its data sets."""
    try:
        client.submit(spec, validate_only=True)
    except InvalidRequestError as error:
        return error.violations
    except UnavailableError as error:
        click.echo(f"{error} So the names of data sets could not be checked.", err=True)
    return ()
