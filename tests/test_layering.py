"""Walls that import-linter cannot state; pyproject.toml has the others, and `make lint` checks them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if not path.stem.endswith(("_pb2", "_grpc")))


def _imports(path: Path) -> Iterator[str]:
    """Returns the absolute names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module)


def _packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", _modules("nablad"), ids=_name)
def test_the_client_needs_only_its_own_dependencies(path: Path) -> None:
    """A client imports what the base install brings, and the standard library."""
    allowed = {"nablad", "click", "google", "grpc", "grpc_status", "rich", "yaml"} | sys.stdlib_module_names
    assert _packages(path) <= allowed


@pytest.mark.parametrize("path", _modules("workers/mathematics"), ids=_name)
def test_the_mathematics_is_pure(path: Path) -> None:
    """It knows numpy, itself and the parts of the standard library that have no clock, no file and no process."""
    pure = {"copy", "math", "dataclasses", "collections", "functools", "itertools", "types", "typing", "enum"}
    others = {name for name in _imports(path) if name.partition(".")[0] not in pure}
    assert all(name.startswith(("numpy", "workers.mathematics")) for name in others), others


@pytest.mark.parametrize("folder", ["nablad", "workers", "service", "deploy", "benchmarks"])
def test_nothing_but_tests_imports_tests(folder: str) -> None:
    """What runs in production does not depend on what is there for tests."""
    assert [_name(path) for path in _modules(folder) if "tests" in _packages(path)] == []


def test_only_tests_of_benchmarks_import_benchmarks() -> None:
    """Tests of the product have a harness of their own."""
    others = [path for path in _modules("tests") if not path.is_relative_to(ROOT / "tests" / "benchmarks")]
    assert [_name(path) for path in others if "benchmarks" in _packages(path)] == []


def test_no_folder_of_the_contract_is_a_package() -> None:
    """A Python package called proto would hide another project's."""
    assert not list((ROOT / "proto").rglob("*.py"))
