"""The distributions: a client installs nothing but `nablad`, a server the packages of the service on top."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from workers.native.compiler import CompilerError, compile_library

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "deploy" / "server"
LIBRARY = "workers/native/libnablad.so"


def _project(folder: Path) -> Any:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _build(folder: Path, into: Path, version: str = "standard") -> zipfile.ZipFile:
    """The wheel of a project, built as pip does; `version` is ``standard`` or ``editable``."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="pip install hatchling")
    (path,) = wheel.WheelBuilder(str(folder)).build(directory=str(into), versions=[version])
    return zipfile.ZipFile(path)


def _packages(wheel: zipfile.ZipFile) -> set[str]:
    """The names that come into site-packages."""
    return {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}


def _sources(*packages: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py")}


def test_a_client_s_install_brings_only_nablad(tmp_path: Path) -> None:
    """All of it, and no other package: a user's own `service` or `workers` must not be hidden."""
    with _build(ROOT, tmp_path) as wheel:
        assert _packages(wheel) == {"nablad"}
        assert _sources("nablad") <= set(wheel.namelist())


def test_a_server_s_install_adds_the_service_and_the_workers(tmp_path: Path) -> None:
    """All of them, and nothing of the folder that describes it."""
    with _build(SERVER, tmp_path) as wheel:
        assert _packages(wheel) == {"service", "workers"}
        assert _sources("service", "workers") <= set(wheel.namelist())


def test_a_server_s_wheel_has_the_native_library(tmp_path: Path) -> None:
    """Once, compiled for this build whatever lies in the checkout; it fits every Python on this kind of machine."""
    try:
        compile_library(tmp_path / "libnablad.so")
    except CompilerError as error:
        pytest.skip(str(error))
    with _build(SERVER, tmp_path) as wheel:
        assert [name for name in wheel.namelist() if name.endswith(".so")] == [LIBRARY]
        assert {"workers/native/abi.c", "workers/native/nablad.h"} <= set(wheel.namelist())
        (path,) = tmp_path.glob("*.whl")
        machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        assert path.name.endswith(f"-py3-none-{machine}.whl")
        wheel.extractall(tmp_path / "installed")
    assert _missing_reason(tmp_path / "installed") == ""


def test_without_a_compiler_the_build_succeeds_and_says_what_is_lost(tmp_path: Path) -> None:
    """A library in the source folder may be of another machine and is not used; what is installed explains itself."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("workers", "service", "deploy/server"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / LIBRARY).touch()
    environment = {name: value for name, value in os.environ.items() if name != "CC"} | {"PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")],
        cwd=tmp_path / "deploy" / "server",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Built without the native library: no C compiler was found" in done.stdout + done.stderr
    assert "same results without the native library, but short steps take longer" in done.stdout + done.stderr
    (path,) = (tmp_path / "dist").iterdir()
    assert path.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(tmp_path / "installed")
    assert "installed where no C compiler worked; install gcc or clang" in _missing_reason(tmp_path / "installed")


def _missing_reason(folder: Path) -> str:
    """Why there is no native library, asked of packages in a folder."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from workers.native import library; "
    code += f"assert library.__file__.startswith({str(folder)!r}); print(library.missing_reason(), end='')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_an_install_in_place_copies_no_code(tmp_path: Path) -> None:
    """What is changed in the repository must be what runs."""
    with _build(SERVER, tmp_path, "editable") as wheel:
        assert not [name for name in wheel.namelist() if name.endswith(".py")]


def test_the_extra_brings_the_server_s_distribution_of_the_same_folder(tmp_path: Path) -> None:
    """No index is asked for it."""
    with _build(ROOT, tmp_path) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        needs = message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist") or []
    assert [need for need in needs if "'server'" in need] == [f"nablad-server @ {SERVER.as_uri()} ; extra == 'server'"]


def test_both_are_of_one_release() -> None:
    """The server's needs the client's of the same number."""
    client, server = _project(ROOT), _project(SERVER)
    assert server["version"] == client["version"]
    assert f"nablad=={client['version']}" in server["dependencies"]
    assert {server[name] for name in ("requires-python", "license")} == {client["requires-python"], client["license"]}
