"""What is searched for is found."""

import pytest

from benchmarks.scale.forms import Form
from benchmarks.scale.model import step
from benchmarks.scale.prediction import (
    BATCH_SIZE,
    HOST_MEMORY_BYTES,
    MOST_WORKERS,
    fits,
    fixed_batch,
    least_shards,
    limits,
    links,
    most_workers,
)
from benchmarks.scale.quantities import Link, Parts, host_link, network_link
from benchmarks.scale.stages import Work

FORMS = [Form.of_size(size) for size in (10**5, 10**7, 10**9)]


def _efficiency(form: Form, workers: int, shards: int, parts: Parts, link: Link) -> float:
    return step(Work(form, 256, workers, shards), parts, link).efficiency


@pytest.mark.parametrize("form", FORMS)
def test_most_workers_are_the_last_that_are_efficient(form: Form, parts: Parts) -> None:
    """So many compute for half of their time, one more does not."""
    for link in links(parts):
        most = most_workers(form, 256, parts, link)
        assert 1 <= most < MOST_WORKERS
        assert _efficiency(form, most, 1, parts, link) >= 0.5 > _efficiency(form, most + 1, 1, parts, link)


def test_most_workers_know_their_ends(parts: Parts) -> None:
    """None where a single one waits for longer than it computes; no more than are looked at."""
    assert most_workers(FORMS[0], 1, parts, network_link(10)) == 0
    assert most_workers(FORMS[0], 1e9, parts, network_link(10)) == MOST_WORKERS


@pytest.mark.parametrize("form", FORMS[1:])
def test_least_shards_are_the_first_that_are_enough(form: Form, parts: Parts) -> None:
    """With one fewer, the workers compute for less than half of their time."""
    link = network_link(10)
    shards = least_shards(form, 256, 50, parts, link)
    assert shards
    assert shards > 1
    assert _efficiency(form, 50, shards, parts, link) >= 0.5 > _efficiency(form, 50, shards - 1, parts, link)


def test_one_shard_is_enough_for_as_many_as_one_server_serves(parts: Parts) -> None:
    """The two searches agree."""
    link = host_link(parts, "shared")
    most = most_workers(FORMS[1], 256, parts, link)
    assert least_shards(FORMS[1], 256, most, parts, link) == 1
    assert least_shards(FORMS[1], 256, most + 1, parts, link) == 2


def test_what_no_shards_can_help_is_named(parts: Parts) -> None:
    """Small networks lack time for messages; a large one, on a single host, lacks memory."""
    small, large = limits(parts, host_link(parts, "shared"), 256, (10**5, 10**9))
    assert small.shards[1000] is None
    assert small.lacking[1000] == "messages"
    assert large.shards[1000] is None
    assert large.lacking[1000] == "memory"
    assert not fits(Work(large.form, 256, 1000), host_link(parts, "shared"))


def test_memory_bounds_the_workers_of_one_server(parts: Parts) -> None:
    """So many fit, one more does not."""
    link = network_link(25)
    (limit,) = limits(parts, link, 256, (10**9,))
    assert fits(Work(limit.form, 256, limit.memory_workers), link)
    assert not fits(Work(limit.form, 256, limit.memory_workers + 1), link)
    assert limit.memory_workers == pytest.approx(HOST_MEMORY_BYTES / 4e9, abs=1)


def test_the_best_number_of_workers_has_the_shortest_step(parts: Parts) -> None:
    """Of a fixed mini-batch, neither one fewer nor one more is faster."""
    link = network_link(10)
    for strong in fixed_batch(parts, link):
        seconds = [
            step(Work(strong.form, BATCH_SIZE / workers, workers), parts, link).seconds
            for workers in (strong.best_workers - 1, strong.best_workers, strong.best_workers + 1)
        ]
        assert min(seconds) == seconds[1]
        assert strong.speedup[1] == 1
        assert strong.best_speedup >= max(strong.speedup.values())
