"""`nabla job watch`."""

import io
import itertools
import json
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
from rich.console import Console

from nablad.cli.bar import ProgressBar
from nablad.cli.exits import ExitCode, interrupted_once
from nablad.cli.watching import Lines
from nablad.client import Client
from nablad.v1 import job_spec_pb2, jobs_pb2
from nablad.v1.metrics_pb2 import Metrics


def _progress(step):
    return jobs_pb2.Progress(epoch=step, epochs=3, step=step, steps=3, training=Metrics(cost=0.5), workers_alive=2)


def _watch(*contents):
    fields = {jobs_pb2.Progress: "progress", jobs_pb2.Waiting: "waiting"}
    return [
        jobs_pb2.WatchJobResponse(**{fields[type(content)]: content})
        if type(content) in fields
        else jobs_pb2.WatchJobResponse(events=[content])
        for content in contents
    ]


def _event(number, **what):
    return jobs_pb2.Event(number=number, message=f"this is event {number}", **what)


@pytest.fixture
def ending(service):
    """Makes the service tell of a job that ends in a state."""

    def script(state, failure_kind=jobs_pb2.FAILURE_KIND_UNSPECIFIED):
        news = _watch(_event(1, state=jobs_pb2.JOB_STATE_RUNNING), _progress(1), _progress(2), _event(2, state=state))
        service.handlers["WatchJob"] = lambda *_: iter(news)
        job = jobs_pb2.Job(job_id="a", state=state, failure_kind=failure_kind)
        service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=job)

    return script


@pytest.mark.parametrize(
    ("state", "exit_code"),
    [
        (jobs_pb2.JOB_STATE_SUCCEEDED, ExitCode.SUCCESS),
        (jobs_pb2.JOB_STATE_FAILED, ExitCode.JOB_FAILED),
        (jobs_pb2.JOB_STATE_CANCELLED, ExitCode.JOB_CANCELLED),
    ],
)
def test_the_exit_code_says_how_the_job_ended(nabla, ending, state, exit_code):
    """Scripts learn from a watch what became of the job."""
    ending(state)
    assert nabla("job", "watch", "a").exit_code == exit_code


def test_the_end_of_a_job_is_known_even_when_its_last_event_was_seen_before(nabla, service):
    """A watch from beyond the last event asks for the job's state."""
    service.handlers["WatchJob"] = lambda *_: iter([])
    service.handlers["GetJob"] = lambda *_: jobs_pb2.GetJobResponse(job=jobs_pb2.Job(state=jobs_pb2.JOB_STATE_FAILED))
    assert nabla("job", "watch", "a", "--from-event", "9").exit_code == ExitCode.JOB_FAILED
    assert service.requests("WatchJob")[0].from_event == 9


def test_events_are_lines_where_there_is_no_terminal(nabla, ending):
    """A log file gets a line for each event, without a bar or colours."""
    ending(jobs_pb2.JOB_STATE_SUCCEEDED)
    assert nabla("job", "watch", "a").stdout.splitlines() == ["   1  this is event 1", "   2  this is event 2"]


def test_json_lines_hold_everything(nabla, ending):
    """Programs get every event and every progress, one object a line."""
    ending(jobs_pb2.JOB_STATE_SUCCEEDED)
    objects = [json.loads(line) for line in nabla("job", "watch", "a", "-o", "json").stdout.splitlines()]
    assert [next(iter(each)) for each in objects] == ["event", "progress", "progress", "event"]
    assert objects[1]["progress"]["training"]["cost"] == 0.5


@pytest.fixture
def waiting(service):
    """The service tells of a job that waits for nodes, and is cancelled."""
    waits = jobs_pb2.Waiting(reason="needs 64 workers: `nabla job scale a 2`")
    states = (jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_CANCELLED)
    queued, cancelled = (_event(number, state=state) for number, state in enumerate(states, start=1))
    service.handlers["WatchJob"] = lambda *_: iter(_watch(queued, waits, cancelled))


def test_a_watch_says_why_a_job_waits(nabla, waiting):
    """Between the events, as a line for people and as an object for programs."""
    lines = nabla("job", "watch", "a").stdout.splitlines()
    assert lines[1] == "      still queued: needs 64 workers: `nabla job scale a 2`"
    objects = [json.loads(line) for line in nabla("job", "watch", "a", "-o", "json").stdout.splitlines()]
    assert objects[1] == {"waiting": {"reason": "needs 64 workers: `nabla job scale a 2`"}}
    assert len(lines) == len(objects) == 3


def test_the_reason_to_wait_stands_below_the_bar_until_the_job_moves():
    """On a terminal it takes the place of the figures."""
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=200, color_system=None)) as bar:
        bar.waiting(jobs_pb2.Waiting(reason="needs 64 workers"))
    assert "needs 64 workers" in screen.getvalue()
    last = io.StringIO()
    with ProgressBar(Console(file=last, force_terminal=True, width=200, color_system=None)) as bar:
        bar.waiting(jobs_pb2.Waiting(reason="needs 64 workers"))
        bar.event(_event(1, state=jobs_pb2.JOB_STATE_STARTING))
    assert "needs 64 workers" not in last.getvalue().rpartition("starting")[2]


def test_a_pause_is_waited_through_with_how_to_resume(nabla, service):
    """A paused job has not ended: the watch goes on to its end, and says how to let the job go on."""
    states = (jobs_pb2.JOB_STATE_PAUSED, jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_SUCCEEDED)
    news = _watch(*(_event(number, state=state) for number, state in enumerate(states, start=1)))
    service.handlers["WatchJob"] = lambda *_: iter(news)
    result = nabla("job", "watch", "a")
    assert result.exit_code == ExitCode.SUCCESS
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr.count("nabla job resume a") == 1


@pytest.mark.parametrize(
    ("state", "retry_is_offered"), [(jobs_pb2.JOB_STATE_FAILED, True), (jobs_pb2.JOB_STATE_CANCELLED, False)]
)
def test_a_failed_job_ends_the_watch_with_how_to_retry(nabla, ending, state, retry_is_offered):
    """Only what failed can be tried again, and the command for it is printed."""
    ending(state)
    assert ("nabla job retry a" in nabla("job", "watch", "a").stderr) is retry_is_offered


@pytest.mark.parametrize(
    ("kind", "words", "command"),
    [
        (jobs_pb2.FAILURE_KIND_UNSPECIFIED, "To try again", "nabla job retry a"),
        (jobs_pb2.FAILURE_KIND_LOST, "To try again", "nabla job retry a"),
        (jobs_pb2.FAILURE_KIND_ENVIRONMENT, "until the cause is removed", "nabla job retry a"),
        (jobs_pb2.FAILURE_KIND_DETERMINISTIC, "would end the same way", "nabla job submit FILE"),
    ],
)
def test_trying_again_is_only_proposed_where_it_can_help(nabla, ending, kind, words, command):
    """A job whose own arithmetic ended it needs another job file; one that lost its processes needs another attempt."""
    ending(jobs_pb2.JOB_STATE_FAILED, kind)
    hint, line = nabla("job", "watch", "a").stderr.splitlines()
    assert words in hint
    assert line.strip() == command


def test_every_kind_of_event_has_its_line(nabla, service):
    """Whatever happens to a job is told in the service's words, checkpoints and lost workers too."""
    kinds = [
        {"worker_joined": False},
        {"checkpoint": 40},
        {"notice": True},
        {"step_core": job_spec_pb2.STEP_CORE_PYTHON},
        {"warning": jobs_pb2.WARNING_KIND_COST_EXPLODED},
        {},
    ]
    events = [_event(number, **kind) for number, kind in enumerate(kinds, start=1)]
    ended = _event(7, state=jobs_pb2.JOB_STATE_SUCCEEDED)
    service.handlers["WatchJob"] = lambda *_: iter([jobs_pb2.WatchJobResponse(events=[*events, ended])])
    assert len(nabla("job", "watch", "a").stdout.splitlines()) == 7
    objects = [json.loads(line) for line in nabla("job", "watch", "a", "-o", "json").stdout.splitlines()]
    assert [each["event"]["number"] for each in objects] == ["1", "2", "3", "4", "5", "6", "7"]


def test_checkpoints_stand_below_the_bar_and_other_events_above_it():
    """Checkpoints come as long as the job runs: a terminal shows the newest one, and a line for what else happens."""
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=200, color_system=None)) as bar:
        for step in (10, 20, 30):
            bar.event(_event(step, checkpoint=step))
            bar.progress(_progress(1))
        bar.event(_event(31, notice=True))
        bar.event(_event(32, worker_joined=False))
        bar.event(_event(33, state=jobs_pb2.JOB_STATE_PAUSED))
    shown = screen.getvalue()
    assert all(part in shown for part in ("checkpoint at step 30", "event 31", "event 32", "event 33", "paused"))
    assert "event 30" not in shown


def test_a_submitted_job_can_be_watched_at_once(nabla, service, ending, digits_job):
    """`submit --watch` ends as the job does."""
    service.handlers["CreateJob"] = lambda *_: jobs_pb2.CreateJobResponse(job=digits_job)
    ending(jobs_pb2.JOB_STATE_FAILED)
    result = nabla("job", "submit", "-", "--watch", stdin="{data: {train: t}, model: {layers: [2, 1]}}")
    assert result.exit_code == ExitCode.JOB_FAILED
    assert "this is event 2" in result.stdout


def test_progress_lines_are_rare(capsys):
    """A progress is printed only when nothing has been for five seconds, by the times at which progress comes."""
    times = itertools.count(step=2)
    lines = Lines(clock=lambda: next(times) / 2)  # every look at the clock is a second after the one before
    for step in range(1, 9):
        lines.progress(_progress(step))
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in printed] == ["epoch 1/3, step 1/3", "epoch 6/3, step 6/3"]


def test_a_progress_without_figures_is_its_position_alone(capsys):
    """No colon announces what does not follow."""
    Lines().progress(jobs_pb2.Progress(epochs=3, steps=6))
    assert capsys.readouterr().out == "      epoch 0/3, step 0/6\n"


@pytest.mark.parametrize("given", [True, False])
def test_ctrl_c_detaches_and_says_how_to_come_back(nabla, service, monkeypatch, given):
    """An interrupted watch leaves the job alone and prints the exact command that goes on from the next event."""

    def interrupted(*_, **__):
        yield _event(41)
        yield _progress(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", interrupted)
    server = ["--server", service.address] if given else []
    result = nabla(*server, "job", "watch", "a", "--from-event", "41")
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "job a keeps running" in result.stderr
    assert " ".join(["nabla", *server, "job watch a --from-event 42"]) in result.stderr
    assert service.calls == []


def test_a_service_that_falls_silent_ends_the_watch_with_how_to_come_back(nabla, service, silent_service, monkeypatch):
    """The job may well go on: the exact command that goes on from the next event is printed with the error."""
    hold = threading.Event()

    def handler(_request, _context):
        yield from _watch(_event(41))
        hold.wait(60)

    service.handlers["WatchJob"] = handler
    monkeypatch.setattr(Lines, "event", lambda *_: silent_service.silence())
    monkeypatch.setattr("nablad.client.Client", partial(Client, patience_s=0, silence_s=1))
    result = nabla("job", "watch", "a", "--from-event", "41", address=silent_service.address)
    hold.set()
    assert result.exit_code == ExitCode.UNREACHABLE
    error, hint, command = result.stderr.splitlines()
    assert silent_service.address in error
    assert hint == "To come back when it answers again:"
    assert command.strip() == "nabla job watch a --from-event 42"


def test_a_service_that_was_never_there_is_not_to_be_come_back_to(nabla, nowhere):
    """Another address is wanted then."""
    result = nabla("job", "watch", "a", address=nowhere)
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "come back" not in result.stderr


def test_an_interrupt_that_comes_twice_is_one():
    """Whoever presses Ctrl-C again a second later is heard again."""
    now = 100.0
    with interrupted_once(lambda: now):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        now = 100.9
        signal.raise_signal(signal.SIGINT)
        now = 102.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_watch_under_a_wrapper_that_interrupts_twice_detaches(service):
    """As `timeout` does it: the watch ends with its words and its exit code, and does not hang."""
    over = threading.Event()

    def watch(_request, _context):
        yield jobs_pb2.WatchJobResponse(events=[_event(1)])
        over.wait(60)

    service.handlers["WatchJob"] = watch
    command = [sys.executable, "-c", "from nablad.cli import main; main()", "--server", service.address]
    with subprocess.Popen(
        [*command, "job", "watch", "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "event 1" in process.stdout.readline()
            for _ in range(2):
                process.send_signal(signal.SIGINT)
            assert process.wait(60) == ExitCode.INTERRUPTED
            detached, command, *more = process.stderr.read().strip().splitlines()
            assert (detached, more) == ("Detached; job a keeps running. To come back:", [])
            assert command.startswith(f"  nabla --server {service.address} job watch a --from-event ")
        finally:
            process.kill()
            over.set()


def test_a_terminal_shows_the_events_and_a_bar_with_the_figures():
    """On a terminal the newest figures stand below the events, and nothing is wider than the terminal."""
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=40, color_system=None)) as bar:
        bar.event(_event(1, state=jobs_pb2.JOB_STATE_RUNNING))
        bar.progress(_progress(2))
        bar.event(jobs_pb2.Event(number=2, message="epoch 3 ended", epoch_end=_progress(3)))
    shown = screen.getvalue()
    assert all(part in shown for part in ("this is event 1", "running", "epoch 3 ended", "100%", "training cost 0.5"))


def test_a_long_job_leaves_few_epochs_above_the_bar():
    """Of a thousand epochs, about twenty stay on the terminal, the last of all among them."""
    screen = io.StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=80, color_system=None)) as bar:
        for epoch in range(1, 1000):
            figures = jobs_pb2.Progress(epoch=epoch, epochs=999, step=epoch, steps=999)
            bar.event(jobs_pb2.Event(number=epoch, message=f"ended {epoch}.", epoch_end=figures))
    shown = screen.getvalue()
    assert 15 <= shown.count("ended ") <= 25
    assert "ended 999." in shown
