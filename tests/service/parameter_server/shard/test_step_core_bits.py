"""Native step core: the bits of the Python path for every rule, type, tree and size."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.parameter_server.shard.norms import Norms

Pair = Any  # of conftest.py
MakePair = Callable[..., Any]

RULES = ("sgd", "momentum", "nesterov", "adam")
DTYPES = ("float32", "float64")
BLOCK = 128 * 1024
# Around the borders of lanes, chunks and blocks.
SIZES = (1, 7, 8, 9, 1023, 1024, 1025, BLOCK - 1, BLOCK, BLOCK + 1)
# Several threads work on vectors from 1 MiB on.
LARGE_SIZE = 3 * BLOCK + 5
SECONDS = 30.0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", range(1, 10))
def test_every_tree_has_the_bits_of_the_python_path(make_pair: MakePair, parts: int, rule: str, dtype: str) -> None:
    """Weights, moments and norms of three steps, for each number of parts, with numbers from denormal to huge."""
    pair = make_pair(rule, dtype, 1030, parts)
    norms = [pair.make_step() for _ in range(3)]
    assert norms == pair.require_equal()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_the_bits_of_the_python_path(make_pair: MakePair, size: int, rule: str, dtype: str) -> None:
    """Around the borders of lanes, chunks and blocks; layers end there too."""
    pair = make_pair(rule, dtype, size)
    norms = [pair.make_step() for _ in range(2)]
    assert norms == pair.require_equal()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(make_pair: MakePair, rule: str, dtype: str) -> None:
    """A vector that several threads update."""
    pair = make_pair(rule, dtype, LARGE_SIZE, parts=2)
    norms = [pair.make_step() for _ in range(2)]
    assert norms == pair.require_equal()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_steps_in_a_row_have_the_bits_of_the_python_path(make_pair: MakePair, workers: int) -> None:
    """Workers that wait for versions, and a core that waits for results: hundreds of steps, in several calls."""
    pair, steps = make_pair(parts=workers), 300
    with ThreadPoolExecutor(workers) as pool:
        work = [pool.submit(_work, pair, part, steps) for part in range(workers)]
        made: dict[int, Norms] = {}
        while pair.shard.version < steps:
            wanted = pair.wanted(min(pair.core.most_steps, steps - pair.shard.version))
            first, report = pair.shard.version, pair.core.make_steps(wanted, 0.01)
            made |= {first + place: norms for place, norms in report.made.norms.items()}
        assert [each.result() for each in work] == [True] * workers
    expected = pair.require_equal()
    assert len(made) > steps // 4
    assert made == {step: expected[step] for step in made}


def _work(pair: Pair, part: int, steps: int) -> bool:
    """Makes the results of a part; returns whether the run went on until then."""
    end = pair.ends[part]
    for step in range(steps):
        while (ready := end.wait_for_version(1, step, SECONDS)) is None:
            pass
        if not ready:
            return False
        pair.report(part, step, 1)
    return True
