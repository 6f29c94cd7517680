"""Pages of a list: sizes and tokens."""

import base64

from service.errors import Reason, ServiceError

__all__ = ["decode_number", "decode_token", "encode_token", "page_size"]

_DEFAULT, _MOST = 50, 1000


def page_size(asked: int) -> int:
    """How many things a page holds: 50 if nothing is asked for, never more than 1000."""
    return min(asked, _MOST) or _DEFAULT


def encode_token(position: int | str | None) -> str:
    """An opaque token for where the next page begins; empty when there is none."""
    return base64.urlsafe_b64encode(str(position).encode()).decode() if position else ""


def decode_token(token: str) -> str:
    """Where the page begins; empty for the first one.

    Raises:
        ServiceError: INVALID_REQUEST, for what this service did not make.
    """
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:  # not ASCII, not base64, or not UTF-8 inside
        raise _invalid(token) from error


def decode_number(token: str) -> int | None:
    """The same for lists that are in order of a number; None for the first page."""
    position = decode_token(token)
    if position and not (position.isascii() and position.isdecimal() and len(position) < 19):
        raise _invalid(token)
    return int(position) if position else None


def _invalid(token: str) -> ServiceError:
    return ServiceError(
        Reason.INVALID_REQUEST,
        f"page_token {token[:40]!r} is none of this service's: give next_page_token of the page before, or nothing",
    )
