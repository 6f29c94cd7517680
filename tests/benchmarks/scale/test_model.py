"""The algebra of the model: what must hold whatever the parts are."""

from dataclasses import replace

import pytest

from benchmarks.scale.forms import Form
from benchmarks.scale.model import SPIN_S, needed_memory, step
from benchmarks.scale.quantities import Link, Parts, host_link, network_link
from benchmarks.scale.stages import SOCKET_BYTES, Work

FORMS = [Form.of_size(size) for size in (10**5, 10**6, 10**7, 10**9)]
SMALL, LARGE = Form((784, 10)), Form((784, 100_000))
WORKERS = (1, 2, 3, 10, 100, 1000)


def _links(parts: Parts) -> list[Link]:
    return [host_link(parts, "shared"), host_link(parts, "inline"), network_link(25), network_link(10)]


@pytest.mark.parametrize("form", [SMALL, LARGE])
def test_one_worker_has_no_rivals(form: Form, parts: Parts) -> None:
    """With one worker the stages follow one another, whether its weights fit into a socket or not."""
    assert SMALL.vector_bytes < SOCKET_BYTES < LARGE.vector_bytes
    link, messages, size = network_link(1), parts.messages["inline"], form.vector_bytes
    predicted = step(Work(form, 100_000, 1), parts, link)
    there_and_back = 2 * 8 * size / 1e9
    server = messages.report_s + parts.inspect.seconds(size) + messages.update_s + parts.update.seconds(size)
    tail = server + link.round_trip_s
    gathering = max(0.0, 100_000 * parts.gather_s - tail)
    expected = parts.computing.seconds(form, 100_000) + there_and_back + tail + gathering
    # One layer: nothing is sent before all is computed. The bytes on the wire take longer than those in the CPU.
    assert predicted.seconds == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_more_workers_are_never_more_efficient(form: Form, parts: Parts) -> None:
    """With as many samples for each, a step takes longer, and more of it is waiting."""
    for link in _links(parts):
        steps = [step(Work(form, 256, workers), parts, link) for workers in WORKERS]
        assert [one.seconds for one in steps] == sorted(one.seconds for one in steps)
        assert [one.efficiency for one in steps] == sorted((one.efficiency for one in steps), reverse=True)
        assert all(0 < one.efficiency < 1 for one in steps)


@pytest.mark.parametrize("form", FORMS)
def test_more_samples_are_more_efficient(form: Form, parts: Parts) -> None:
    """Computing grows with the samples, messages do not."""
    for link in _links(parts):
        efficiencies = [step(Work(form, samples, 10), parts, link).efficiency for samples in (1, 10, 100, 1000)]
        assert efficiencies == sorted(efficiencies)


@pytest.mark.parametrize("form", FORMS)
def test_many_workers_are_bound_by_what_they_share(form: Form, parts: Parts) -> None:
    """In the limit twice the workers take twice as long, if the cost of a report does not depend on their number."""
    parts = replace(parts, report_per_worker_s=0.0)
    for link in _links(parts):
        seconds = [step(Work(form, 1, workers), parts, link).seconds for workers in (10**5, 2 * 10**5)]
        assert seconds[1] / seconds[0] == pytest.approx(2, rel=0.01)


def test_a_network_sets_the_pace_that_it_allows(parts: Parts) -> None:
    """Many workers with large vectors: a step takes no less than the bytes that go in and out of one host."""
    form = FORMS[-1]
    predicted = step(Work(form, 1, 1000), parts, network_link(10))
    assert predicted.wire == pytest.approx(2 * 1000 * form.vector_bytes * 8 / 10e9)
    assert predicted.wire < predicted.seconds
    assert predicted.bottleneck == "network"


def test_shards_divide_what_the_network_takes(parts: Parts) -> None:
    """Each of S parameter servers moves an S-th of the bytes, until each worker's own network is the limit."""
    form, link = FORMS[-1], network_link(10)
    waiting = {s: step(Work(form, 256, 100, s), parts, link).seconds for s in (1, 2, 4, 100, 200)}
    computing = parts.computing.seconds(form, 256)
    assert (waiting[1] - computing) / (waiting[2] - computing) == pytest.approx(2, rel=0.15)
    assert (waiting[2] - computing) / (waiting[4] - computing) == pytest.approx(2, rel=0.3)
    assert waiting[4] > waiting[100]
    assert waiting[200] - computing >= 8 * form.vector_bytes / 10e9


def test_shards_do_not_divide_messages(parts: Parts) -> None:
    """Next to no weights: every parameter server still gets a report of every worker, so that shards only cost."""
    link, form = network_link(25), Form((4, 2))
    for workers in WORKERS:
        one, ten = (step(Work(form, 256, workers, shards), parts, link) for shards in (1, 10))
        assert ten.server == pytest.approx(one.server, rel=0.01)
        assert ten.seconds >= 0.99 * one.seconds


def test_layers_are_sent_while_others_are_computed(parts: Parts) -> None:
    """Two networks of one size: where there is a layer behind the large one, its sending overlaps with computing."""
    link, alone, ahead = network_link(25), Form((5000, 5000)), Form((1000, 4500, 4510))
    slow = replace(parts, computing=replace(parts.computing, flop_s=1e-9))
    assert ahead.weights == pytest.approx(alone.weights, rel=0.01)
    waiting = [
        one.seconds - one.computing for one in (step(Work(form, 256, 10), slow, link) for form in (alone, ahead))
    ]
    last_layer_bytes = 4 * (1000 + 1) * 4500
    whole_s, last_s = (10 * 8 * size / 25e9 for size in (alone.vector_bytes, last_layer_bytes))
    assert waiting[0] - waiting[1] == pytest.approx(whole_s - last_s, rel=0.03)


def test_enough_cpus_are_as_good_as_a_host_each(parts: Parts) -> None:
    """One for each worker and one for the parameter server."""
    work, link = Work(FORMS[0], 256, 4), host_link(parts, "shared")
    assert step(work, parts, link, cpus=5) == step(work, parts, link)
    assert step(work, parts, link, cpus=4).seconds > step(work, parts, link).seconds


def test_few_cpus_have_all_the_work_to_do(parts: Parts) -> None:
    """4 workers on 2 CPUs: these compute, gather and copy for all, and look for orders while others compute."""
    for transport in ("shared", "inline"):
        work, link = Work(FORMS[1], 256, 4), host_link(parts, transport)
        whole = 4 * (parts.computing.seconds(FORMS[1], 256) + 256 * parts.gather_s + SPIN_S) / 2
        assert whole < step(work, parts, link, cpus=2).seconds < 1.5 * whole


def test_rows_are_gathered_while_others_work(parts: Parts) -> None:
    """Gathering shows only where it takes longer than what a worker waits for anyway."""
    work, link = Work(FORMS[2], 256, 10), host_link(parts, "shared")
    assert step(work, replace(parts, gather_s=0.0), parts_link := link) == step(work, parts, parts_link)
    slow = replace(parts, gather_s=1.0)
    assert step(work, slow, link).seconds == pytest.approx(256, rel=0.01)


def test_memory_has_room_for_everybody(parts: Parts) -> None:
    """Weights and a gradient of each worker; shards divide them, but not those of one host."""
    work = Work(FORMS[-1], 1, 9, 5)
    assert needed_memory(work, network_link(10)) == pytest.approx(10 * 4 * FORMS[-1].weights / 5)
    assert needed_memory(work, host_link(parts, "shared")) == 10 * 4 * FORMS[-1].weights
