"""Addresses that the service cannot listen on are told before gRPC tries them."""

import socket

from service.daemon.daemon import _why_taken


def test_a_port_in_use_is_told_in_the_system_s_words() -> None:
    """They say more than gRPC, for which it failed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert _why_taken("127.0.0.1", port) == "Address already in use"
    assert _why_taken("127.0.0.1", port) == ""


def test_a_name_that_is_not_known_is_told_too() -> None:
    """Only port 0 is always free."""
    assert _why_taken("127.0.0.1", 0) == ""
    assert _why_taken("nowhere.invalid", 7471) != ""
