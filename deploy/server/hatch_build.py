"""Build hook of nablad-server: its packages lie in the root of the repository."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGES = ("service", "workers")


class PackagesOfTheRoot(BuildHookInterface):  # type: ignore[type-arg]  # the type of its configuration is not public
    """Puts the packages into a wheel; an editable install only points to them, which a static table cannot say."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds them to what is built."""
        if version != "editable":
            build_data["force_include"].update({f"../../{package}": package for package in _PACKAGES})
