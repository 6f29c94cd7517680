"""Pagination of lists: sizes of pages, and tokens of where the next page begins."""

import base64

from service.errors import Reason, ServiceError

__all__ = ["decode_number", "decode_token", "encode_token", "page_size"]

_DEFAULT, _MOST = 50, 1000


def page_size(asked: int) -> int:
    """Returns the number of entries of a page: 50 if the client asks for none, and at most 1000."""
    return min(asked, _MOST) or _DEFAULT


def encode_token(position: int | str | None) -> str:
    """Returns an opaque token of where the next page begins; an empty one if there is no next page."""
    return base64.urlsafe_b64encode(str(position).encode()).decode() if position else ""


def decode_token(token: str) -> str:
    """Returns where the page of a token begins; an empty text for the first page.

    Raises:
        ServiceError: INVALID_REQUEST, because this service did not make the token.
    """
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError as error:  # not ASCII, not base64, or not UTF-8 inside
        raise _invalid(token) from error


def decode_number(token: str) -> int | None:
    """Returns where the page of a token begins in a list that is ordered by a number; None for the first page."""
    position = decode_token(token)
    if position and not (position.isascii() and position.isdecimal() and len(position) < 19):
        raise _invalid(token)
    return int(position) if position else None


def _invalid(token: str) -> ServiceError:
    return ServiceError(
        Reason.INVALID_REQUEST,
        f"page_token {token[:40]!r} is none of this service's: give next_page_token of the page before, or nothing",
    )
