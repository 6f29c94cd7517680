"""The table of scenarios: every fault that a job may meet."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.harness import faults
from tests.harness.run import Run

__all__ = ["SCENARIOS", "Scenario"]

# What the loss of a worker may cost; of a parameter server; of the service, with its start; of Ray, with its return.
_WORKER_SECONDS = 10.0
_SERVER_SECONDS = 20.0
_SERVICE_SECONDS = 60.0
_RAY_SECONDS = 120.0


@dataclass(frozen=True)
class Scenario:
    """A fault, or a call that must not change the result either.

    Attributes:
        name: For the command line and the table.
        fault: In words.
        disturb: Submits the run's job and does it.
        stall_limit_s: The longest time without a step that may come of it.
        spares_others: Whether other jobs must not notice.
        needs_notice: Whether an event must tell of it that is there for nothing else.
    """

    name: str
    fault: str
    disturb: Callable[[Run], None]
    stall_limit_s: float
    spares_others: bool = True
    needs_notice: bool = False


SCENARIOS = (
    Scenario(
        "worker-ordered",
        "SIGKILL a worker before it computes a gradient",
        faults.kill_worker_at("worker.ordered"),
        _WORKER_SECONDS,
    ),
    Scenario(
        "worker-computing",
        "SIGKILL a worker that has computed a gradient and not sent it",
        faults.kill_worker_at("worker.computing"),
        _WORKER_SECONDS,
    ),
    Scenario(
        "worker-reported",
        "SIGKILL a worker after it has sent a gradient",
        faults.kill_worker_at("worker.reported"),
        _WORKER_SECONDS,
    ),
    Scenario("all-workers", "SIGKILL all workers at once", faults.kill_all_workers, _WORKER_SECONDS),
    Scenario(
        "worker-stopped",
        "SIGSTOP a worker for up to 10 s",
        faults.stop_worker,
        10.0 + _WORKER_SECONDS,
    ),
    Scenario(
        "server",
        "SIGKILL the parameter server at a random moment",
        faults.kill_parameter_server,
        _SERVER_SECONDS,
    ),
    Scenario(
        "server-at-point",
        "SIGKILL the parameter server at each of its failpoints",
        faults.kill_parameter_server_at_point,
        _SERVER_SECONDS,
    ),
    Scenario(
        "disk-full",
        "no room on the disk for one to three checkpoints",
        faults.fill_disk,
        _WORKER_SECONDS,
        needs_notice=True,
    ),
    Scenario("pause", "pause the job, and resume it", faults.pause, _SERVER_SECONDS),
    Scenario("scale", "change the number of workers three times", faults.scale, _WORKER_SECONDS),
    Scenario(
        "service",
        "SIGKILL the service at a random moment",
        faults.kill_service,
        _SERVICE_SECONDS,
        spares_others=False,
    ),
    Scenario(
        "service-at-point",
        "SIGKILL the service at each of its failpoints",
        faults.kill_service_at_point,
        _SERVICE_SECONDS,
        spares_others=False,
    ),
    Scenario(
        "drain",
        "SIGTERM the service, once or twice at the same moment",
        faults.drain,
        _SERVICE_SECONDS,
        spares_others=False,
    ),
    Scenario(
        "drain-twice",
        "SIGTERM the service twice, more than a second apart",
        faults.terminate_twice,
        _SERVICE_SECONDS,
        spares_others=False,
    ),
    Scenario(
        "checkpoint-damaged",
        "truncate the newest checkpoint, or change a byte of it, while the service is down after SIGKILL",
        faults.damage_checkpoint,
        _SERVICE_SECONDS,
        spares_others=False,
        needs_notice=True,
    ),
    Scenario("raylet", "SIGKILL Ray's raylet", faults.kill_of_ray("raylet"), _RAY_SECONDS, spares_others=False),
    Scenario("gcs", "SIGKILL Ray's head", faults.kill_of_ray("gcs_server"), _RAY_SECONDS, spares_others=False),
    Scenario(
        "cluster-process",
        "SIGKILL the process that speaks to Ray",
        faults.kill_of_ray("cluster process"),
        _RAY_SECONDS,
        spares_others=False,
    ),
)
