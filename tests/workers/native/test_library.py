"""The native library: only one that was compiled from these sources is used, and a missing one is explained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.native import compiler, library
from workers.native.compiler import CompilerError, abi, compile_library
from workers.native.library import load_library, missing_reason, native_library


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A library that was compiled just now."""
    path = tmp_path / "libnablad.so"
    try:
        compile_library(path)
    except CompilerError as error:
        pytest.skip(str(error))
    return path


def test_a_compiled_library_is_loaded(compiled: Path) -> None:
    """It says which sources it was compiled from, and nothing of the compilation stays behind."""
    loaded, reason = load_library(compiled)
    assert reason == ""
    assert loaded is not None
    assert loaded.nablad_abi() == abi()
    assert list(compiled.parent.iterdir()) == [compiled]


def test_the_sources_compile_without_warnings(
    compiled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the compiler warns of is shown to whoever compiles, and there is nothing."""
    compile_library(tmp_path / "again.so")
    assert capfd.readouterr() == ("", "")


def test_the_checkout_has_its_library(compiled: Path) -> None:
    """Where a compiler works, `make` and installs in place have compiled it from the present sources."""
    assert missing_reason() == ""
    assert native_library() is not None
    assert native_library() is native_library()


def test_a_stale_library_is_not_used(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of other sources might take other arguments; the reason names the file and the remedy."""
    monkeypatch.setattr(library, "abi", lambda: abi() ^ 1)
    loaded, reason = load_library(compiled)
    assert loaded is None
    assert reason.startswith(
        f"no native library: {compiled} was compiled from other sources than those beside it; run `"
    )


@pytest.mark.parametrize("name", ["abi.c", "nablad.h", "another.c"])
def test_every_source_decides_the_digest(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of any C file, or a new one, makes a library stale."""
    for path in Path(compiler.__file__).parent.glob("*.[ch]"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(compiler, "_FOLDER", tmp_path)
    before = abi()
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert abi() != before


def test_a_damaged_library_is_explained(tmp_path: Path) -> None:
    """Neither a file of another kind nor a library of something else is used."""
    path = tmp_path / "libnablad.so"
    path.write_bytes(b"\x7fELF, or almost")
    loaded, reason = load_library(path)
    assert loaded is None
    assert reason.startswith(f"no native library: {path} cannot be used (")


def test_a_missing_library_is_explained(tmp_path: Path) -> None:
    """The reason says what happened at the installation, and what to do."""
    assert load_library(tmp_path / "libnablad.so") == (
        None,
        "no native library: nablad-server was installed where no C compiler worked; install gcc or clang, then run "
        "`pip install ./deploy/server` in nablad's source folder (`make native` in a checkout)",
    )


def _no_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(folder))


def _missing_cc(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("CC", "mycc -m64")


def _failing_cc(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    script = folder / "mycc"
    script.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_no_compiler, "no C compiler was found"),
        (_missing_cc, "'mycc' of the environment"),
        (_failing_cc, "it is broken"),
    ],
)
def test_a_compilation_that_cannot_be_says_why(
    prepare: Callable[[pytest.MonkeyPatch, Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves no file."""
    prepare(monkeypatch, tmp_path)
    with pytest.raises(CompilerError, match=message):
        compile_library(tmp_path / "libnablad.so")
    assert not [path for path in tmp_path.iterdir() if path.name != "mycc"]
