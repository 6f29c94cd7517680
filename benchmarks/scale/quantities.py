"""What the model is made of: measured parts of this machine, and links that are measured or stated. Pure."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.scale.forms import Form

__all__ = ["NETWORK_LATENCY_S", "Computing", "Curve", "Link", "Messages", "Parts", "host_link", "network_link"]

NETWORK_LATENCY_S = 50e-6
"""Of a network, one way, the waking of the process at its end included. Stated, not measured."""


@dataclass(frozen=True)
class Curve:
    """Seconds per byte, which depend on how many bytes there are: on the caches that they fit in.

    Attributes:
        sizes: Bytes at which it was measured, rising.
        seconds_per_byte: At each of them; beyond the ends as there, in between on a straight line over log(bytes).
    """

    sizes: tuple[float, ...]
    seconds_per_byte: tuple[float, ...]

    def seconds(self, size: float) -> float:
        """For so many bytes."""
        return size * self._rate(size)

    def _rate(self, size: float) -> float:
        sizes, rates = self.sizes, self.seconds_per_byte
        right = bisect_left(sizes, size)
        if right in (0, len(sizes)):
            return rates[max(0, right - 1)]
        share = math.log(size / sizes[right - 1]) / math.log(sizes[right] / sizes[right - 1])
        return rates[right - 1] + share * (rates[right] - rates[right - 1])


@dataclass(frozen=True)
class Computing:
    """What a gradient costs on one thread: a fitted sum of four terms.

    Attributes:
        call_s: Of each call.
        flop_s: Of a floating-point operation of the matrix products.
        node_sample_s: Of an activation and its derivative, for one node and one sample.
        weight_s: Of a weight, however many samples there are: it is read twice and its gradient written once.
        worst_error: Of the fit, relative, over the measured cases.
    """

    call_s: float
    flop_s: float
    node_sample_s: float
    weight_s: float
    worst_error: float = 0.0

    def seconds(self, form: Form, samples: float) -> float:
        """For the gradient of so many samples."""
        of_samples = samples * (form.flops * self.flop_s + form.nodes * self.node_sample_s)
        return self.call_s + of_samples + form.weights * self.weight_s


@dataclass(frozen=True)
class Messages:
    """What a step costs beside its numbers, with one worker and next to no weights.

    Attributes:
        order_s: Of the parameter server's thread, for an order.
        report_s: Of the same, for a report: receiving, checking, entering.
        update_s: Of the same, for an update.
        send_s: Of the worker, for sending a report.
        round_trip_s: What is left of the step: from the end of the worker's computing until the server's thread has its
            report, and from an order until the worker has it.
    """

    order_s: float
    report_s: float
    update_s: float
    send_s: float
    round_trip_s: float


@dataclass(frozen=True)
class Parts:
    """Everything that was measured.

    Attributes:
        computing: A gradient.
        gather_s: A row, read and scaled.
        messages: By transport, "shared" or "inline".
        report_per_worker_s: What each further worker adds to the cost of every report.
        inspect: Checking a gradient that another process has just written.
        reduce: Adding one gradient to another.
        update: The last addition and the update in one pass.
        read: Reading weights that another process has just written.
        send: The sender's CPU, for bytes into a TCP socket.
        receive: The receiver's CPU, for bytes out of it.
        loopback: One TCP connection between two processes of this host, both at work; bytes one way at a time.
    """

    computing: Computing
    gather_s: float
    messages: Mapping[str, Messages]
    report_per_worker_s: float
    inspect: Curve
    reduce: Curve
    update: Curve
    read: Curve
    send: Curve
    receive: Curve
    loopback: Curve


@dataclass(frozen=True)
class Link:
    """How weights and gradients travel.

    Attributes:
        name: For people.
        transport: "shared" or "inline".
        wire: Seconds per byte of one host's way in or out, which all that goes there shares; None where nothing moves.
        round_trip_s: The latency of both ways.
    """

    name: str
    transport: str
    wire: Curve | None
    round_trip_s: float


def host_link(parts: Parts, transport: str) -> Link:
    """On one host."""
    wire = parts.loopback if transport == "inline" else None
    return Link(f"one host, {transport}", transport, wire, parts.messages[transport].round_trip_s)


def network_link(gigabits: float) -> Link:
    """Each worker and each parameter server on a host of its own, with so many Gbit/s both in and out."""
    wire = Curve((1.0,), (8 / (gigabits * 1e9),))
    return Link(f"{gigabits:g} Gbit/s", "inline", wire, 2 * NETWORK_LATENCY_S)
