"""The stages that a step goes through, in seconds: what the formulas (model.py) and the simulation are about. Pure.

W workers work for S parameter servers that each hold one of S equal shards, b bytes, of the weights' B bytes.
"""

from dataclasses import dataclass

from benchmarks.scale.forms import Form
from benchmarks.scale.quantities import Link, Parts

__all__ = ["SOCKET_BYTES", "Stages", "Work", "stages_of"]

SOCKET_BYTES = 4 << 20
"""What a TCP socket takes to send without waiting: the most that Linux gives it by default. Stated, not measured."""


@dataclass(frozen=True)
class Work:
    """What a step has to do.

    Attributes:
        form: Of the network.
        samples: Of one worker.
        workers: W.
        shards: S.
    """

    form: Form
    samples: float
    workers: int
    shards: int = 1

    @property
    def shard_bytes(self) -> float:
        """What one parameter server holds: b."""
        return self.form.vector_bytes / self.shards


@dataclass(frozen=True)
class Stages:
    """What a step takes in its stages, in seconds; those up to `check` for each worker.

    Attributes:
        order: A parameter server's thread sends an order, and a shard if they travel.
        wire: A shard travels, one way.
        own_wire: All shards travel through the worker's own network, one way.
        compute: The worker computes.
        speak: It reads weights from shared memory, and speaks to further shards.
        copy: What its CPU does meanwhile for bytes out of and into its sockets.
        receive: The thread takes the gradient out of the socket.
        check: It inspects the gradient, and adds it to the others.
        update: Last addition and update, once.
        gather: The worker reads its next rows.
        round_trip: Latencies of both ways.
    """

    order: float
    wire: float
    own_wire: float
    compute: float
    speak: float
    copy: float
    receive: float
    check: float
    update: float
    gather: float
    round_trip: float

    @property
    def thread(self) -> float:
        """What the parameter server's thread does for each worker."""
        return self.order + self.receive + self.check


def stages_of(work: Work, parts: Parts, link: Link) -> Stages:
    """What the parts come to, for such work over such a link."""
    messages, whole, shard = parts.messages[link.transport], work.form.vector_bytes, work.shard_bytes
    inline = link.transport == "inline"
    # Each further shard is one more report to send and one more order to read, which costs about as much.
    speak = 2 * (work.shards - 1) * messages.send_s
    report = messages.report_s + (work.workers - 1) * parts.report_per_worker_s
    # Of W gradients, W − 1 have to be added, one of them on the way to the update.
    added = max(0, work.workers - 2) / work.workers
    return Stages(
        order=messages.order_s + (parts.send.seconds(shard) if inline else 0.0),
        wire=link.wire.seconds(shard) if link.wire else 0.0,
        own_wire=link.wire.seconds(whole) if link.wire else 0.0,
        compute=parts.computing.seconds(work.form, work.samples),
        speak=speak + (0.0 if inline else parts.read.seconds(whole)),
        copy=parts.send.seconds(whole) + parts.receive.seconds(whole) if inline else 0.0,
        receive=parts.receive.seconds(shard) if inline else 0.0,
        check=report + parts.inspect.seconds(shard) + added * parts.reduce.seconds(shard),
        update=messages.update_s + parts.update.seconds(shard),
        gather=work.samples * parts.gather_s,
        round_trip=link.round_trip_s,
    )
