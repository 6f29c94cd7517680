"""The progress bar of a job on a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from nablad.cli.metrics import progress_line
from nablad.jobspec.names import name_of
from nablad.v1 import jobs_pb2

# A job may have thousands of epochs: the bar shows the newest one, and at most these many ends stay above it.
_EPOCHS_SHOWN = 20


class ProgressBar:
    """A bar over all steps with the newest metrics below it and the events above it."""

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("", total=None)
        self._metrics = Text("", style="dim")
        self._checkpoint = ""
        self._waits = False
        self._live = Live(Group(self._bar, self._metrics), console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def event(self, event: jobs_pb2.Event) -> None:
        """Prints the event above the bar; a checkpoint below it, because there are many of them."""
        kind = event.WhichOneof("what")
        if kind == "checkpoint":
            self._checkpoint = f"; checkpoint at step {event.checkpoint}"
            return
        if kind == "state":
            self._bar.update(self._task, description=name_of(jobs_pb2.JobState.DESCRIPTOR, event.state))
            if self._waits:
                self._waits, self._metrics.plain = False, ""
        if kind == "epoch_end":
            self.progress(event.epoch_end)
        if kind != "epoch_end" or self._stays(event.epoch_end):
            self._live.console.print(Text(event.message))

    def progress(self, progress: jobs_pb2.Progress) -> None:
        """Moves the bar."""
        self._waits = False
        self._bar.update(self._task, completed=progress.step, total=progress.steps or None)
        self._metrics.plain = f"{progress_line(progress)}{self._checkpoint}"

    def waiting(self, waiting: jobs_pb2.Waiting) -> None:
        """Shows the reason below the bar, until the job moves."""
        self._waits, self._metrics.plain = True, waiting.reason

    @staticmethod
    def _stays(progress: jobs_pb2.Progress) -> bool:
        every = -(-progress.epochs // _EPOCHS_SHOWN) or 1
        return progress.epoch % every == 0 or progress.epoch == progress.epochs
