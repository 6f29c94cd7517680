"""Ray's settings in the environment: it reads them when it is imported, and its processes when they start."""

import logging
import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

__all__ = ["prepare_embedded", "prepare_guest"]

_log = logging.getLogger(__name__)

_NO_STATISTICS: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
# Of a Ray of our own.
_OWN_SETTINGS: Final = {
    # When the cluster process is killed, Ray's own look for each other no longer than so many seconds, and end.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    # Ray remembers what has ended, and would have a hundred times as much of it.
    "RAY_maximum_gcs_destroyed_actor_cached_count": "1000",
    "RAY_maximum_gcs_dead_worker_cached_count": "1000",
    # Nobody looks at the history of its tasks.
    "RAY_task_events_report_interval_ms": "0",
    # Ray's switch for systems on which it makes no clusters: the node's address is 127.0.0.1, and every process of
    # Ray listens there alone. The argument _node_ip_address cannot say that: Ray replaces a loopback address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_TOKEN_BYTES: Final = 32
# What would lead an embedded Ray to another token than its own.
_FOREIGN_TOKENS: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH")
_TOKEN_FILE: Final = "~/.ray/auth_token"  # noqa: S105 (a path)


def prepare_embedded(environment: MutableMapping[str, str]) -> None:
    """Sets what a Ray of our own needs: loopback only, and a token that nothing but this environment holds.

    Without a token here, Ray would write one into the home directory, for all to read, or not start if it cannot.

    Args:
        environment: Of this process, before it imports Ray.
    """
    for name in _FOREIGN_TOKENS:
        environment.pop(name, None)
    environment.update(_NO_STATISTICS)
    environment.update(_OWN_SETTINGS)
    environment.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(_TOKEN_BYTES))


def prepare_guest(environment: MutableMapping[str, str]) -> None:
    """Sets what is needed to join a cluster: the user's own token is sent if there is one.

    A cluster asks for the token that was there when it was started, but those who join have to be told to send it.

    Args:
        environment: Of this process, before it imports Ray.
    """
    for name, value in _NO_STATISTICS.items():
        environment.setdefault(name, value)
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys() or _has_token_file():
        environment.setdefault("RAY_AUTH_MODE", "token")


def _has_token_file() -> bool:
    """Whether Ray would find a token in the home directory."""
    try:
        return os.access(Path(_TOKEN_FILE).expanduser(), os.R_OK)
    except RuntimeError as error:  # this user has no home directory
        _log.debug("no token is looked for: %s", error)
        return False
