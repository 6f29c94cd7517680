"""Watching a job until it finishes: what is shown, and how a watch ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from nablad.cli.bar import ProgressBar
from nablad.cli.exits import EndError, ExitCode
from nablad.cli.metrics import progress_line
from nablad.cli.output import json_line, on_terminal
from nablad.cli.settings import Settings
from nablad.errors import UnavailableError
from nablad.v1 import jobs_pb2

if TYPE_CHECKING:
    from nablad.client import Client

_ENDINGS = {
    jobs_pb2.JOB_STATE_SUCCEEDED: ExitCode.SUCCESS,
    jobs_pb2.JOB_STATE_FAILED: ExitCode.JOB_FAILED,
    jobs_pb2.JOB_STATE_CANCELLED: ExitCode.JOB_CANCELLED,
}
_SECONDS_BETWEEN_LINES = 5.0
# Advice after a failed job, and the command that goes with it.
_TRY_AGAIN = ("To try again, from the newest checkpoint if there is one", "job retry {job_id}")
_HINTS = {
    jobs_pb2.FAILURE_KIND_DETERMINISTIC: (
        "Another attempt would end the same way. Change what the reason names, and submit a new job",
        "job submit FILE",
    ),
    jobs_pb2.FAILURE_KIND_ENVIRONMENT: (
        "Another attempt ends the same way until the cause is removed; to try again then",
        "job retry {job_id}",
    ),
}


class Display(Protocol):
    """A display of the updates of a watch."""

    def event(self, event: jobs_pb2.Event) -> None:
        """Shows an event."""

    def progress(self, progress: jobs_pb2.Progress) -> None:
        """Shows the job's progress."""

    def waiting(self, waiting: jobs_pb2.Waiting) -> None:
        """Shows why the job waits in the queue."""


class Lines:
    """A line for each event, and now and then one for the progress: for files and pipes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at_s = clock()

    def event(self, event: jobs_pb2.Event) -> None:
        """Prints the event."""
        self._say(f"{event.number:>4}  {event.message}")

    def progress(self, progress: jobs_pb2.Progress) -> None:
        """Prints the progress, unless another line has been printed just before."""
        if self._clock() >= self._next_at_s:
            self._say(f"      {progress_line(progress)}")

    def waiting(self, waiting: jobs_pb2.Waiting) -> None:
        """Prints the reason."""
        self._say(f"      still queued: {waiting.reason}")

    def _say(self, line: str) -> None:
        click.echo(line)
        self._next_at_s = self._clock() + _SECONDS_BETWEEN_LINES


class JsonLines:
    """An object for each event, each progress and each reason to wait, on a line of its own: for programs."""

    def event(self, event: jobs_pb2.Event) -> None:
        """Prints ``{"event": …}``."""
        click.echo(f'{{"event": {json_line(event)}}}')

    def progress(self, progress: jobs_pb2.Progress) -> None:
        """Prints ``{"progress": …}``."""
        click.echo(f'{{"progress": {json_line(progress)}}}')

    def waiting(self, waiting: jobs_pb2.Waiting) -> None:
        """Prints ``{"waiting": …}``."""
        click.echo(f'{{"waiting": {json_line(waiting)}}}')


@contextmanager
def display_for(output: str) -> Iterator[Display]:
    """Yields the display: JSON if asked for, else a progress bar on a terminal, else lines."""
    if output == "json":
        yield JsonLines()
    elif on_terminal():
        with ProgressBar() as bar:
            yield bar
    else:
        yield Lines()


class Watch:
    """A watch of a job until it ends. While the job is paused, the watch waits, and says how to resume it.

    Attributes:
        next_event: Number of the first event that has not been shown.
        begun: True once something has been shown.
    """

    def __init__(self, client: "Client", settings: Settings, job_id: str, from_event: int = 1) -> None:
        self.next_event = from_event
        self.begun = False
        self._client = client
        self._settings = settings
        self._job_id = job_id

    def run(self, output: str) -> ExitCode:
        """Shows the job until it ends.

        Returns:
            The exit code for its ending.
        """
        state = jobs_pb2.JOB_STATE_UNSPECIFIED
        with display_for(output) as display:
            for update in self._client.watch(self._job_id, self.next_event, on_lost=_tell_of_loss):
                self.begun = True
                if isinstance(update, jobs_pb2.Progress):
                    display.progress(update)
                elif isinstance(update, jobs_pb2.Waiting):
                    display.waiting(update)
                else:
                    display.event(update)
                    self.next_event = update.number + 1
                    state = update.state or state
                    if update.state == jobs_pb2.JOB_STATE_PAUSED:
                        self._tell_how_to_resume()
        if state not in _ENDINGS:  # its last event is older than next_event
            state = self._client.job(self._job_id).state
        return _ENDINGS.get(state, ExitCode.REFUSED)

    def _tell_how_to_resume(self) -> None:
        """Prints the command, in words that are true of a past pause too, because a watch also shows old events."""
        click.echo(f"A paused job goes on after:  {self._settings.command(f'job resume {self._job_id}')}", err=True)


def watch_job(client: "Client", settings: Settings, job_id: str, from_event: int, output: str) -> ExitCode:
    """Shows a job until it ends. After Ctrl-C or the loss of the service, prints the command that goes on watching.

    Returns:
        The exit code for its ending.

    Raises:
        UnavailableError: The service could not be reached.
        EndError: The service was lost, and could not be reached again.
    """
    watch = Watch(client, settings, job_id, from_event)
    try:
        return watch.run(output)
    except KeyboardInterrupt:
        click.echo(
            f"\nDetached; job {job_id} keeps running. To come back:\n  {_way_back(settings, job_id, watch)}", err=True
        )
        return ExitCode.INTERRUPTED
    except UnavailableError as error:
        if not watch.begun:
            raise
        way_back = _way_back(settings, job_id, watch)
        raise EndError(f"{error}\nTo come back when it answers again:\n  {way_back}", ExitCode.UNREACHABLE) from error


def _way_back(settings: Settings, job_id: str, watch: Watch) -> str:
    return settings.command(f"job watch {job_id} --from-event {watch.next_event}")


def watch_and_advise(client: "Client", settings: Settings, job_id: str, from_event: int, output: str) -> ExitCode:
    """Does what `watch_job` does; after a failed job, also prints advice."""
    ending = watch_job(client, settings, job_id, from_event, output)
    if ending is ExitCode.JOB_FAILED:
        hint, command = _HINTS.get(client.job(job_id).failure_kind, _TRY_AGAIN)
        click.echo(f"{hint}:\n  {settings.command(command.format(job_id=job_id))}", err=True)
    return ending


def _tell_of_loss(error: UnavailableError) -> None:
    click.echo(f"{error} Trying again.", err=True)
