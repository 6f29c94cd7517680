"""The boards, one a file, and what they are made of."""

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
"""What makes each board, by the name of its file."""
