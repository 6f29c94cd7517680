"""A watch that outlives its connection."""

import inspect
import itertools
import threading

import grpc
import pytest

from nablad import Client, InternalError, NotFoundError, UnavailableError
from nablad.client.connection import _strict
from nablad.v1 import jobs_pb2
from service.api.server import SERVER_OPTIONS

# The beginning of HTTP/2's frame: 8 bytes long, of type PING, not an answer, of no stream.
_PING = b"\0\0\x08\x06\0\0\0\0\0"


def _event(number):
    return jobs_pb2.Event(number=number, message=f"event {number}")


def _told(*numbers, step=None):
    """What the service sends: some events, and after them the progress at a step."""
    progress = jobs_pb2.Progress(step=step) if step else None
    return jobs_pb2.WatchJobResponse(events=map(_event, numbers), progress=progress)


def _numbers(news):
    return [each.number for each in news if isinstance(each, jobs_pb2.Event)]


@pytest.fixture
def broken_after(service):
    """Makes the service break off its first watches after these answers, and end the one after them."""

    def script(*watches):
        left = list(watches)

        def handler(_request, context):
            yield from left.pop(0)
            if left:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        service.handlers["WatchJob"] = handler

    return script


def test_events_and_progress_come_one_by_one_in_the_order_in_which_they_are_sent(client, broken_after):
    """A watch yields what the service sends, progress after the events of its message, and ends when it does."""
    broken_after([_told(1, 2), _told(step=5), _told(3, step=6), _told(4)])
    progress = [jobs_pb2.Progress(step=5), jobs_pb2.Progress(step=6)]
    assert list(client.watch("a")) == [_event(1), _event(2), progress[0], _event(3), progress[1], _event(4)]


def test_a_lost_watch_goes_on_after_the_last_event_seen(client, service, broken_after):
    """After a loss, no event is missing and none comes twice, even when the service repeats some."""
    broken_after([_told(4, 5)], [_told(4, 5, 6, step=5)], [_told(6), _told(7)])
    lost = []
    news = list(client.watch("a", from_event=4, on_lost=lost.append))
    assert _numbers(news) == [4, 5, 6, 7]
    assert [request.from_event for request in service.requests("WatchJob")] == [4, 6, 7]
    assert [type(error) for error in lost] == [UnavailableError] * 2


@pytest.mark.parametrize(
    ("from_event", "watches", "seen", "sentence"),
    [
        (0, [[_told(2)]], [], "event 1 of job a, but sent event 2"),
        (1, [[_told(1, 3)]], [1], "event 2 of job a, but sent event 3"),
        (4, [[_told(4)], [_told(6)]], [4], "event 5 of job a, but sent event 6"),
    ],
)
def test_a_gap_is_an_error(client, broken_after, from_event, watches, seen, sentence):
    """A service that leaves events out is not believed any further, be it at once, in between or after a loss."""
    broken_after(*watches)
    watch = client.watch("a", from_event)
    assert [next(watch).number for _ in seen] == seen
    with pytest.raises(InternalError, match=sentence):
        next(watch)


def test_a_service_that_does_not_come_back_is_given_up(service, broken_after):
    """When the patience is at its end, the watch raises what it met with."""
    broken_after([_told(1)], [], [])
    with Client(service.address, patience_s=0) as client:
        watch = client.watch("a")
        assert next(watch).number == 1
        with pytest.raises(UnavailableError, match="going away"):
            next(watch)


def test_a_service_that_falls_silent_is_noticed(silent_service, service):
    """A machine that stops, or a cable that is pulled, closes no connection: only unanswered pings tell."""
    hold = threading.Event()

    def handler(_request, _context):
        yield _told(1)
        hold.wait(60)

    service.handlers["WatchJob"] = handler
    with Client(silent_service.address, patience_s=0, silence_s=1) as client:
        watch = client.watch("a")
        assert next(watch).number == 1
        silent_service.silence()
        with pytest.raises(UnavailableError, match="nabla"):
            next(watch)
    hold.set()


def test_a_watch_of_a_job_that_only_waits_is_not_ended_for_its_pings(silent_service, service, monkeypatch):
    """Nothing is said for as long as a job is paused, and pings go out all the time."""
    pings, enough = itertools.count(1), threading.Event()

    def heard(data):
        if _PING in data and next(pings) > 4:
            enough.set()

    def handler(_request, _context):
        yield _told(1)
        silent_service.heard = heard
        enough.wait(60)
        yield _told(2)

    service.handlers["WatchJob"] = handler
    lost = []
    monkeypatch.setattr("nablad.client.connection._PING_SHARE", 0.01)
    with Client(silent_service.address, silence_s=15) as client:
        assert _numbers(client.watch("a", on_lost=lost.append)) == [1, 2]
    assert enough.is_set()
    assert lost == []


def test_silence_is_borne_for_less_than_half_a_minute_and_pinged_no_faster_than_the_service_allows():
    """By default; the service ends connections that ping faster than it lets them."""
    silence_s = inspect.signature(Client).parameters["silence_s"].default
    options = dict(_strict(silence_s))
    time_ms, timeout_ms = options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]
    assert time_ms + timeout_ms == 1000 * silence_s <= 30_000
    assert timeout_ms == options["grpc.http2.ping_timeout_ms"]
    assert time_ms >= dict(SERVER_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]


def test_a_service_that_never_said_a_word_is_not_waited_for(nowhere):
    """A wrong address is found out at once, whatever the patience."""
    with Client(nowhere, patience_s=1e9) as client, pytest.raises(UnavailableError, match=nowhere):
        next(client.watch("a"))


def test_a_refusal_after_a_loss_is_final(client, service, refuse, broken_after):
    """Only a lost connection is made again: a job deleted in the meantime ends the watch."""
    broken_after([_told(1)], [])
    watch = client.watch("a")
    next(watch)
    service.handlers["WatchJob"] = refuse(grpc.StatusCode.NOT_FOUND, "there is no job a")
    with pytest.raises(NotFoundError, match="there is no job a"):
        list(watch)


def test_a_watch_that_nobody_wants_any_more_is_ended_in_the_service(client, service):
    """Closing the iterator cancels the call."""
    ended = threading.Event()

    def handler(_request, context):
        context.add_callback(ended.set)
        yield _told(1)
        ended.wait()

    service.handlers["WatchJob"] = handler
    watch = client.watch("a")
    next(watch)
    watch.close()
    assert ended.wait(30)
