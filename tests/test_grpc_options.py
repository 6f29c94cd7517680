"""Options of channels and servers: gRPC takes every name, and does nothing with those that it does not know."""

import ast
import re
from pathlib import Path

import pytest
from grpc._cython import cygrpc

ROOT = Path(__file__).parents[1]
OPTION = re.compile(r"grpc\.(http2\.)?[a-z0-9_]+")


def _options() -> dict[str, str]:
    """Where each option is set."""
    paths = [
        path for package in ("nablad", "workers", "service", "benchmarks") for path in (ROOT / package).rglob("*.py")
    ]
    return {
        node.value: str(path.relative_to(ROOT))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.fullmatch(node.value)
    }


OPTIONS = _options()


@pytest.fixture(scope="module")
def library() -> bytes:
    """The code of gRPC, which holds the names of its options."""
    return Path(cygrpc.__file__).read_bytes()


def test_options_are_found() -> None:
    """Else the next test holds nothing."""
    assert OPTIONS.keys() >= {"grpc.keepalive_time_ms", "grpc.so_reuseport", "grpc.http2.ping_timeout_ms"}


@pytest.mark.parametrize("name", OPTIONS)
def test_grpc_knows_every_option_that_is_set(name: str, library: bytes) -> None:
    """The whole name is in its code."""
    assert name.encode() + b"\0" in library, OPTIONS[name]
