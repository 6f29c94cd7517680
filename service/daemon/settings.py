"""Settings of the daemon: each with its default and its help in one place."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click
from platformdirs import user_data_path

from nablad.address import DEFAULT_ADDRESS

__all__ = ["DaemonSettings", "data_dir_option", "setting_options"]


def _setting(default: Any, help_: str, **options: Any) -> Any:
    return field(default=default, metadata={"help": help_, **options})


def _user_data() -> Path:
    """Returns the user's data directory; called only if no other is given, because not every user has one."""
    try:
        return user_data_path("nablad")
    except RuntimeError as error:
        raise click.UsageError(
            "there is no home directory to keep jobs, data sets and models in: give another place with --data-dir or "
            "NABLAD_DATA_DIR"
        ) from error


@dataclass(frozen=True)
class DaemonSettings:
    """Settings of `nablad serve`, from the command line or from NABLAD_… in the environment."""

    data_dir: Path = _setting(
        _user_data,
        "Where jobs, data sets and models are kept; `nablad serve` makes it if it is not there.",
        type=click.Path(file_okay=False, path_type=Path),
        show_default="the user's data directory",
    )
    address: str = _setting(
        DEFAULT_ADDRESS, "HOST:PORT of the gRPC API; port 0 takes a free one. It has no authentication: keep it local."
    )
    metrics_address: str = _setting("127.0.0.1:7472", "HOST:PORT of the HTTP page /metrics; port 0 takes a free one.")
    ray: str | None = _setting(
        None, "Address of a running Ray cluster. Without it the daemon starts a Ray of its own on this machine."
    )
    cpus: int = _setting(
        os.cpu_count() or 1,
        "CPUs that the daemon's own Ray gives to workers.",
        type=click.IntRange(min=1),
        show_default="as many as the machine has",
    )
    watch_interval: float = _setting(
        1.0,
        "Length of the intervals, in seconds, in each of which a client that watches a job gets one message at most. A "
        "message has everything since the one before; the end of a job is sent at once. Where hundreds watch, 5 "
        "seconds save CPU time.",
        type=click.FloatRange(min=0.0, max=60.0),
        metavar="SECONDS",
    )
    log_level: str = _setting(
        "info", "How much goes to standard error.", type=click.Choice(["debug", "info", "warning", "error"])
    )


def setting_options(command: Any) -> Any:
    """Gives a click command an option for each setting."""
    return _with_options(command, [setting.name for setting in fields(DaemonSettings)])


def data_dir_option(command: Any) -> Any:
    """Gives a click command the option for the data directory."""
    return _with_options(command, ["data_dir"])


def _with_options(command: Any, names: Sequence[str]) -> Any:
    for setting in reversed([setting for setting in fields(DaemonSettings) if setting.name in names]):
        options: dict[str, Any] = {"show_default": True, **setting.metadata}
        name = setting.name.replace("_", "-")
        command = click.option(
            f"--{name}", default=setting.default, envvar=f"NABLAD_{setting.name.upper()}", **options
        )(command)
    return command
