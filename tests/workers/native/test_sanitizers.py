"""The library's C code under sanitizers."""

from collections.abc import Callable

import pytest

from workers.native.compiler import abi

pytestmark = pytest.mark.system


def test_the_identity_is_that_of_the_sources(run_sanitized: Callable[..., str]) -> None:
    """The sources compile under each sanitizer, and the program has the digest that Python expects."""
    assert run_sanitized("abi.c") == f"{abi()}\n"


def test_rows_are_gathered_within_bounds(run_sanitized: Callable[..., str]) -> None:
    """Of all sizes, into buffers that are exactly as long."""
    assert run_sanitized("gather.c") == ""


def test_steps_are_those_of_a_plain_loop_whatever_is_delayed(run_sanitized: Callable[..., str]) -> None:
    """Calls that are interrupted and runs that end in mid-step: each number is right, and nothing races."""
    assert run_sanitized("step.c") == ""
