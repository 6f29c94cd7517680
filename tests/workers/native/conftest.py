"""Programs in C that are compiled with the library's sources, and run under a sanitizer."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.native.compiler import CompilerError, compile_program

_FOLDER = Path(__file__).parent
# Optimisation is kept, because it is optimised code that races; the rest makes a finding fatal and readable.
_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-Werror")
_SECONDS = 100
# gcc's ThreadSanitizer before release 14 does not know where newer kernels put what they map.
_WRONG_MAPPING = "unexpected memory mapping"

RunSanitized = Callable[..., str]


# UndefinedBehaviorSanitizer alone as well, because AddressSanitizer's memory is aligned better than others.
@pytest.fixture(params=["address,undefined", "undefined", "thread"])
def run_sanitized(request: pytest.FixtureRequest, tmp_path: Path) -> RunSanitized:
    """Compiles a program of this folder with the library's sources under each sanitizer, runs it, returns its output.

    Fails if the program does, or if a sanitizer finds something; skips where there is no compiler or no sanitizer.
    """
    flag = f"-fsanitize={request.param}"

    def run(name: str, *arguments: str) -> str:
        _skip_without_sanitizer(flag, tmp_path)
        program = tmp_path / Path(name).stem
        compile_program(_FOLDER / name, program, (flag, *_FLAGS))
        done = _run(program, *arguments)
        assert done.returncode == 0, f"{name} under {flag} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def _run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if _WRONG_MAPPING in done.stderr and (setarch := shutil.which("setarch")):
        command = [setarch, "--addr-no-randomize", *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done


def _skip_without_sanitizer(flag: str, folder: Path) -> None:
    """Tries the sanitizer with a program that does nothing."""
    source = folder / "nothing.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        compile_program(source, folder / "nothing")
    except CompilerError as error:
        pytest.skip(f"the native library cannot be compiled here: {error}")
    try:
        compile_program(source, folder / "nothing", (flag,))
    except CompilerError as error:
        pytest.skip(f"the compiler has no {flag}: {error}")
    done = _run(folder / "nothing")
    if done.returncode:
        pytest.skip(f"programs with {flag} do not run here: {done.stderr}")
