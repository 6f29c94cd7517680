"""Environment of Ray: settings that Ray reads when it is imported, and its processes when they start."""

import logging
import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

__all__ = ["prepare_embedded", "prepare_guest"]

_log = logging.getLogger(__name__)

_NO_STATISTICS: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
# Settings of an embedded Ray.
_OWN_SETTINGS: Final = {
    # Ray's processes end after so many seconds without each other, as when the cluster process was killed.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    # Ray remembers ended actors and workers, by default a hundred times as many.
    "RAY_maximum_gcs_destroyed_actor_cached_count": "1000",
    "RAY_maximum_gcs_dead_worker_cached_count": "1000",
    # The history of tasks is not used.
    "RAY_task_events_report_interval_ms": "0",
    # Ray's switch for systems without clusters: every process of Ray listens on 127.0.0.1 only. The argument
    # _node_ip_address cannot do that, because Ray replaces a loopback address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_TOKEN_BYTES: Final = 32
# Variables that would make an embedded Ray use another token than its own.
_FOREIGN_TOKENS: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH")
_TOKEN_FILE: Final = "~/.ray/auth_token"  # noqa: S105 (a path)


def prepare_embedded(environment: MutableMapping[str, str]) -> None:
    """Prepares an embedded Ray: it listens on loopback only, and its token is in this environment only.

    Without a token, Ray would write one into the home directory, readable for all, or not start if it cannot.

    Args:
        environment: Environment of this process, before it imports Ray.
    """
    for name in _FOREIGN_TOKENS:
        environment.pop(name, None)
    environment.update(_NO_STATISTICS)
    environment.update(_OWN_SETTINGS)
    environment.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(_TOKEN_BYTES))


def prepare_guest(environment: MutableMapping[str, str]) -> None:
    """Prepares to join a cluster that runs elsewhere, with the user's own token if there is one.

    A cluster requires the token with which it was started, but a process that joins sends one only if told to.

    Args:
        environment: Environment of this process, before it imports Ray.
    """
    for name, value in _NO_STATISTICS.items():
        environment.setdefault(name, value)
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys() or _has_token_file():
        environment.setdefault("RAY_AUTH_MODE", "token")


def _has_token_file() -> bool:
    """Returns whether Ray would find a token in the home directory."""
    try:
        return os.access(Path(_TOKEN_FILE).expanduser(), os.R_OK)
    except RuntimeError as error:  # this user has no home directory
        _log.debug("the home directory is not searched for a token: %s", error)
        return False
