"""The order in which the service's processes look for modules.

Python itself puts the start directory, or that of the script, and PYTHONPATH before everything that is installed. A
folder called ``workers`` or a file ``numpy.py`` there would then run in the place of the service's own. So the order
here is: the standard library, the folder of this package, what is installed, PYTHONPATH. PYTHONPATH still adds modules
(the module system of a cluster may give numpy in this way); it replaces none.

Only the standard library is imported here, as nothing else may be before the order is right.
"""

import os
import sys
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

__all__ = ["child_environment", "put_in_order", "search_order"]


def put_in_order() -> None:
    """Sets ``sys.path`` of this process; the caller is a main program whose first entry Python has added by itself."""
    given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100 (that of sys.path)
    installed = sys.path if sys.flags.safe_path else _without_start(sys.path, given)
    sys.path[:] = search_order(installed, given, _standard_library(), str(Path(__file__).parents[1]))


def search_order(path: Sequence[str], python_path: Collection[str], standard: Collection[str], own: str) -> list[str]:
    """Returns the entries of a module search path in the order of this module, each once.

    Args:
        path: The entries as they are, without the start directory.
        python_path: Those that PYTHONPATH gave.
        standard: Those of the standard library.
        own: The folder of this package, which need not be among them.
    """
    first = [entry for entry in path if entry in standard]
    installed = [entry for entry in path if entry not in standard and entry not in python_path]
    last = [entry for entry in path if entry in python_path]
    return list(dict.fromkeys(entry for entry in [*first, own, *installed, *last] if entry))


def child_environment(environment: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Returns an environment whose Python programs look for modules where this one does, and nowhere before.

    Args:
        environment: The one to begin with.
        path: The module search path of this program, whose entries hold no ``:``.
    """
    entries = [entry for entry in path if entry and os.pathsep not in entry]
    return {**environment, "PYTHONPATH": os.pathsep.join(entries), "PYTHONSAFEPATH": "1"}


def _without_start(path: Sequence[str], given: Collection[str]) -> Sequence[str]:
    """Python adds none if the start directory is gone: then the first entry is another one."""
    return path if path[0] in given or path[0] in _standard_library() else path[1:]


def _standard_library() -> set[str]:
    library = sysconfig.get_path("stdlib")
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    archive = Path(library).with_name(f"python{version}.zip")
    return {library, sysconfig.get_path("platstdlib"), str(Path(library, "lib-dynload")), str(archive)}
