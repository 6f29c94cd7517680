"""A service that may be killed, and is started again at the same address over the same data directory."""

import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from nablad import Client
from nablad.local import LocalService, pids_of
from tests.harness import PROMPT
from tests.harness.fuses import Fuses
from tests.harness.processes import Census, Departure, lower_priority, send
from tests.harness.trace import Trace
from tests.harness.works import DATASETS, MOST_WORKERS, bystander

__all__ = ["Service"]

# The bystander takes one.
_CPUS = MOST_WORKERS + 1
# As many steps of the bystander as bring it past every hit of a failpoint, in steps as in epochs.
_BYSTANDER_STEPS = 1300
_BYSTANDER_SECONDS = 60.0
_END_SECONDS = 40.0


class Service:
    """Leaving the block stops it, if it still runs, and kills what is left.

    Attributes:
        daemon: The service's own process.
        client: Of it; outlives restarts.
        fuses: The failpoints of all its processes.
        bystander: A job that nobody disturbs; None until there is one.
        data_directory: Its data directory.
        departures: Processes that were to end by themselves, in the order of the faults that they come from.
        temporary: What its processes have for a temporary folder.
    """

    daemon: LocalService
    client: Client

    def __init__(self) -> None:
        """Does not start it yet."""
        self.bystander: Trace | None = None
        self.departures: list[Departure] = []
        self._bystander_pids: set[int] = set()

    def __enter__(self) -> Self:
        # A short path: Ray's sockets lie below it.
        self._folder = tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True)
        root = Path(self._folder.name)
        self.data_directory, self.temporary = root / "data", root / "t"
        for folder in (self.temporary, root / "fuses"):
            folder.mkdir()
        self.fuses = Fuses(root / "fuses")
        environment = {**self.fuses.environment, "TMPDIR": str(self.temporary)}
        self.daemon = LocalService(
            self.data_directory, cpus=_CPUS, options=PROMPT, environment=environment, log_file=root / "log"
        )
        try:
            self.daemon.start()
            self.client = Client(self.daemon.address, patience_s=0)
            for name, file in DATASETS.items():
                self.client.add_dataset(name, [file])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.bystander is not None:
            self.bystander.close()
        send(signal.SIGKILL, self.daemon.processes())
        self.daemon.stop()
        if hasattr(self, "client"):
            self.client.close()
        self._folder.cleanup()

    def processes(self) -> dict[int, str]:
        """Command lines by process id, but for those that are about to end by themselves."""
        departing = {pid for departure in self.departures for pid in departure.pids}
        return {pid: line for pid, line in self.daemon.processes().items() if pid not in departing}

    def expect_departure(self, *, of_daemon: bool) -> None:
        """Expects all processes that run now to be gone soon."""
        processes = self.processes()
        if not of_daemon:
            del processes[self.daemon.process.pid]
        self.departures.append(Departure(processes))

    def census(self) -> Census:
        """Takes a census of what its processes use of the machine."""
        return Census.take(self.processes(), self.temporary, self.data_directory)

    def fleet(self) -> set[int]:
        """Processes of jobs, except for the bystander's."""
        return self.workers() | self.parameter_servers()

    def workers(self) -> set[int]:
        """Process ids of workers, except for the bystander's."""
        return pids_of("worker", self.processes()) - self._bystander_pids

    def parameter_servers(self) -> set[int]:
        """Process ids of parameter servers, except for the bystander's."""
        return pids_of("parameter server", self.processes()) - self._bystander_pids

    @property
    def log(self) -> str:
        """The last that the daemons wrote to it."""
        return self.daemon.log_file.read_text(errors="replace")[-5000:]

    def start_bystander(self) -> None:
        """Submits a job that nobody shall disturb, waits until it is past every failpoint, and makes it step aside."""
        job_id = self.client.submit(bystander()).job_id
        self.bystander = Trace(self.daemon.address, job_id)
        assert self.bystander.wait_for(self._is_past_failpoints, _BYSTANDER_SECONDS), self.log
        self._bystander_pids = self.fleet()
        lower_priority(self._bystander_pids)

    def _is_past_failpoints(self) -> bool:
        return self.bystander is not None and self.bystander.step > _BYSTANDER_STEPS

    def wait_until_dead(self, seconds: float = _END_SECONDS) -> bool:
        """Returns whether the daemon ended within so many seconds."""
        try:
            self.daemon.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self) -> None:
        """Starts the next daemon where the last one was, as whoever looks after services would do.

        Whatever that one has left must end by itself.
        """
        self.expect_departure(of_daemon=True)
        self.daemon.start()

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        if self.bystander is not None:
            self.client.cancel(self.bystander.job_id)
        return self.daemon.stop()
