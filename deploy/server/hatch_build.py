"""Build hook of nablad-server: its packages lie in the root of the repository, and it has a library to compile."""

import sysconfig
import tempfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGES = ("service", "workers")
_WITHOUT = "Training has the same results without the native library, but short steps take longer."


class PackagesOfTheRoot(BuildHookInterface):  # type: ignore[type-arg]  # the type of its configuration is not public
    """Puts packages and library into a wheel. An editable install points to the packages; the library lies in them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds them to what is built; without a C compiler, all but the library."""
        root = Path(self.root).parents[1]
        compiler = _load_compiler(root)
        if version == "editable":
            self._compile(compiler, compiler.LIBRARY)
            return
        build_data["force_include"].update(_package_files(root))
        # Outside the source folder, which may be read-only.
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name) / compiler.LIBRARY.name
        if self._compile(compiler, library):
            build_data["force_include"][str(library)] = str(compiler.LIBRARY.relative_to(root))
            # The library has no Python header, so one wheel is for every Python, but for one kind of machine.
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().translate(str.maketrans("-.", "__"))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Removes what was compiled; the wheel is written."""
        if version != "editable":
            self._folder.cleanup()

    def _compile(self, compiler: Any, output: Path) -> bool:
        try:
            compiler.compile_library(output)
        except compiler.CompilerError as error:
            self.app.display_warning(f"Built without the native library: {error}\n{_WITHOUT}")
            return False
        return True


def _load_compiler(root: Path) -> Any:
    """Returns the module that compiles; the package that it is in is not installed yet."""
    loader = SourceFileLoader("compiler", str(root / "workers" / "native" / "compiler.py"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module


def _package_files(root: Path) -> dict[str, str]:
    """Returns all files of the packages but those that were compiled in place."""
    files = (path for package in _PACKAGES for path in (root / package).rglob("*") if path.is_file())
    return {
        str(path): str(path.relative_to(root))
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".so"
    }
