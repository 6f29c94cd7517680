"""Compilation of the native library; imports nothing of nablad, because builds run it before anything is installed."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["LIBRARY", "CompilerError", "abi", "compile_library", "compile_program"]

_FOLDER = Path(__file__).parent
LIBRARY = _FOLDER / "libnablad.so"

# Nothing that depends on the machine that compiles (-march=native), or that may round in another way (-ffast-math,
# contraction to fused multiply-add): the library must have the same bits everywhere. For the same reason CFLAGS is not
# read. Without math-errno a square root is one instruction; its value stays the same.
_FLAGS = (
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-pthread",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
)
_SHARED = ("-fPIC", "-shared")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 300


class CompilerError(Exception):
    """There is no C compiler, or it failed; the message says which and how."""


def abi() -> int:
    """Returns the digest of sources and flags; a library that was compiled from others has another one."""
    digest = zlib.crc32(" ".join(_FLAGS).encode())
    for path in sorted([*_FOLDER.glob("*.c"), *_FOLDER.glob("*.h")]):
        digest = zlib.crc32(path.name.encode() + b"\0" + path.read_bytes(), digest)
    return digest & 0x7FFFFFFF  # fits into a C int


def compile_library(output: Path = LIBRARY) -> None:
    """Compiles the library into `output`; processes that have loaded a former one keep it.

    Raises:
        CompilerError: There is no C compiler, or it failed.
    """
    _compile(output, _SHARED)


def compile_program(main: Path, output: Path, flags: Sequence[str] = ()) -> None:
    """Compiles the library's sources and a C file with a `main` into the program `output`.

    Args:
        main: C file that may include the library's headers.
        output: Program to write.
        flags: More flags for the compiler, such as ``-fsanitize=thread``; they win over the usual ones.

    Raises:
        CompilerError: There is no C compiler, or it failed.
    """
    _compile(output, (f"-I{_FOLDER}", *flags), main)


def _compile(output: Path, flags: Sequence[str], *more: Path) -> None:
    compiler = _find_compiler()
    sources = [*sorted(_FOLDER.glob("*.c")), *more]
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".compile-") as folder:
        unfinished = Path(folder) / output.name
        command = [
            *compiler,
            *_FLAGS,
            f"-DNABLAD_ABI={abi()}",
            *flags,
            *map(str, sources),
            "-o",
            str(unfinished),
            "-lm",
        ]
        try:
            done = subprocess.run(  # noqa: S603 - the compiler that whoever builds has chosen
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerError(f"{compiler[0]} failed: {error}") from error
        if done.returncode:
            raise CompilerError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
        sys.stderr.write(done.stderr)  # warnings
        unfinished.replace(output)


def _find_compiler() -> list[str]:
    """Returns the command of $CC, or else of the first usual compiler that is there."""
    if not sys.platform.startswith("linux"):
        raise CompilerError(f"the native library is for Linux; this is {sys.platform}")
    if chosen := shlex.split(os.environ.get("CC", "")):
        if shutil.which(chosen[0]) is None:
            raise CompilerError(f"the C compiler {chosen[0]!r} of the environment variable CC is not there")
        return chosen
    for name in _COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise CompilerError(f"no C compiler was found (CC is not set; {', '.join(_COMPILERS)} are not on the PATH)")


def _main() -> int:
    """Compiles the library beside its sources, for ``make native``."""
    try:
        compile_library()
    except CompilerError as error:
        sys.stderr.write(
            f"No native library: {error}\nTraining has the same results without it, but short steps take longer.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
