"""The distributions: a client installs nothing but `nablad`, a server the packages of the service on top."""

import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "deploy" / "server"


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
