"""Grafana boards, one file each, and their parts."""

from collections.abc import Callable, Mapping
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import job, overview, service

__all__ = ["BOARDS"]

BOARDS: Final[Mapping[str, Callable[[], Dashboard]]] = {
    "overview": overview.board,
    "job": job.board,
    "service": service.board,
}
"""Builders of the boards, by the names of their files."""
