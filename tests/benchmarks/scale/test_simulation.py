"""Formulas and simulation say the same of the same step."""

import pytest

from benchmarks.scale.forms import Form
from benchmarks.scale.model import step
from benchmarks.scale.quantities import Parts, host_link, network_link
from benchmarks.scale.simulation import simulate
from benchmarks.scale.stages import Work

FORMS = [Form((784, 10)), *map(Form.of_size, (10**5, 10**6, 10**7))]
SAMPLES = (1, 64, 4096)


@pytest.mark.parametrize("form", FORMS)
def test_shared_memory_is_a_pipeline(form: Form, parts: Parts) -> None:
    """Where only the thread is shared, nothing is left out: the two agree to the last digits."""
    link = host_link(parts, "shared")
    for samples in SAMPLES:
        for workers in (1, 2, 7, 100):
            for shards in (1, 3):
                work = Work(form, samples, workers, shards)
                assert simulate(work, parts, link) == pytest.approx(step(work, parts, link).seconds)


@pytest.mark.parametrize("form", FORMS)
def test_one_worker_never_queues(form: Form, parts: Parts) -> None:
    """Over a network too, the two agree."""
    for samples in SAMPLES:
        work = Work(form, samples, 1)
        predicted = step(work, parts, network_link(10)).seconds
        assert simulate(work, parts, network_link(10)) == pytest.approx(predicted, rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_formulas_are_near_where_workers_are_efficient(form: Form, parts: Parts) -> None:
    """Queues of several workers over a network are simplified: 15 % while a third of their time is computing."""
    for link in (network_link(10), network_link(25)):
        for samples in (64, 256, 1024, 4096):
            for workers in (1, 2, 5, 10, 20, 50):
                work = Work(form, samples, workers)
                predicted = step(work, parts, link)
                if predicted.efficiency > 1 / 3:
                    assert simulate(work, parts, link) == pytest.approx(predicted.seconds, rel=0.15)


def test_a_network_is_never_faster_than_its_bytes(parts: Parts) -> None:
    """However pieces take turns, all weights go out, and the gradient of the last worker in comes after its weights."""
    work, link = Work(FORMS[-1], 1, 20), network_link(10)
    assert simulate(work, parts, link) > (20 + 1) * 8 * work.form.vector_bytes / 10e9
