"""The walls: who may import whom."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nablad", "workers", "service")  # from the bottom up

MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if not path.stem.endswith(("_pb2", "_grpc"))
)


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()]
            yield from modules if len(modules) == len(inner) else [str(node.module)]


def _packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    """The order is service → workers → nablad, never up."""
    floor = PACKAGES.index(path.relative_to(ROOT).parts[0])
    assert not _packages(path) & set(PACKAGES[floor + 1 :])


@pytest.mark.parametrize("path", [path for path in MODULES if "mathematics" in path.parts], ids=_name)
def test_the_mathematics_is_pure(path: Path) -> None:
    """It knows numpy, itself and the parts of the standard library that have no clock, no file and no process."""
    pure = {"math", "dataclasses", "collections", "functools", "itertools", "types", "typing", "enum"}
    others = {name for name in _imports(path) if name.partition(".")[0] not in pure}
    assert all(name.startswith(("numpy", "workers.mathematics")) for name in others), others


def test_only_one_file_knows_ray() -> None:
    """All that is Ray goes through one file."""
    assert [_name(path) for path in MODULES if "ray" in _packages(path)] == ["service/cluster/ray/cluster.py"]


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(ROOT / "nablad")], ids=_name)
def test_the_client_needs_only_its_own_dependencies(path: Path) -> None:
    """What the base install brings, and the standard library."""
    allowed = {"nablad", "click", "google", "grpc", "grpc_status", "rich", "yaml"} | sys.stdlib_module_names
    assert _packages(path) <= allowed


def test_state_machines_and_policies_are_pure() -> None:
    """The parameter server's core sees neither gRPC, nor Ray, nor a clock, nor a file."""
    core = {"training", "rounds", "reduction", "dispatcher", "inspection", "policies", "telemetry"}
    impure = {"grpc", "ray", "time", "os", "pathlib", "asyncio", "threading", "logging", "socket"}
    for name in core:
        assert not _packages(ROOT / "service" / "parameter_server" / f"{name}.py") & impure
    assert not _packages(ROOT / "service" / "job_states.py") & impure


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").rglob("*.py")), ids=_name)
def test_what_is_deployed_needs_neither_tests_nor_benchmarks(path: Path) -> None:
    """Code that only they use stands with them."""
    assert not _packages(path) & {"benchmarks", "tests"}


def test_imports_have_no_circles() -> None:
    """Modules can be put in an order in which each imports only earlier ones."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    waiting = {name: set(_imports(path)) & names.keys() - {name} for name, path in names.items()}
    while ready := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting


def test_no_folder_of_the_contract_is_a_package() -> None:
    """A Python package called proto would hide another project's."""
    assert not list((ROOT / "proto").rglob("*.py"))
