"""From the metrics page to the parts of a step."""

from benchmarks.service_jobs import StepProfile, read_figures, step_profile, steps, transports

PAGE = """
nablad_job_worker_seconds_total{activity="gathering",job_id="7"} 0.5
nablad_job_worker_seconds_total{activity="computing",job_id="7"} 3.0
nablad_job_worker_seconds_total{activity="waiting",job_id="7"} 0.25
nablad_job_server_seconds_total{activity="waiting",job_id="7"} 1.5
nablad_job_server_seconds_total{activity="something new",job_id="7"} 0.1
nablad_job_step_seconds_count{job_id="7"} 1000.0
nablad_job_step_seconds_sum{job_id="7"} 2.0
"""


def test_seconds_become_microseconds_of_a_step_and_a_worker() -> None:
    """Whatever activities there are; one that both sides have is kept apart."""
    profile = step_profile(read_figures(PAGE.splitlines()), {}, workers=2)
    assert profile == StepProfile(
        step_us=2000.0,
        worker_us={"gathering": 250.0, "computing": 1500.0, "waiting": 125.0},
        server_us={"waiting": 1500.0, "something new": 100.0},
    )


def test_steps_before_the_first_look_do_not_count() -> None:
    """What was counted by then is taken off, also from activities that one look alone has."""
    first = [line.rpartition(" ")[0] + " 1.0" for line in PAGE.splitlines() if "computing" in line or "step" in line]
    profile = step_profile(read_figures(PAGE.splitlines()), read_figures(first), workers=1)
    assert profile.step_us == 1e6 * 1.0 / 999
    assert profile.worker_us["computing"] == 1e6 * 2.0 / 999
    assert profile.worker_us["gathering"] == 1e6 * 0.5 / 999


def test_a_job_too_short_for_two_looks_counts_as_a_whole() -> None:
    """When the first look came after the last step."""
    figures = read_figures(PAGE.splitlines())
    assert step_profile(figures, figures, workers=2) == step_profile(figures, {}, workers=2)


def test_messages_are_what_the_own_work_of_a_worker_leaves() -> None:
    """Whether or not gathering is counted apart from computing."""
    assert step_profile(read_figures(PAGE.splitlines()), {}, workers=2).messages_us == 250.0
    assert StepProfile(2000.0, {"computing": 1500.0}, {}).messages_us == 500.0


def test_only_transports_in_use_are_named() -> None:
    """With the number of workers."""
    lines = [
        'nablad_job_transport_workers{job_id="7",transport="shared"} 2.0',
        'nablad_job_transport_workers{job_id="7",transport="inline"} 0.0',
    ]
    assert transports(read_figures([*PAGE.splitlines(), *lines])) == {"shared": 2}
    assert transports({}) == {}


def test_the_steps_of_a_page_are_counted() -> None:
    """None if there is nothing on it yet."""
    assert steps(read_figures(PAGE.splitlines())) == 1000
    assert steps({}) == 0
