"""Address of the service: its default, and the reading of one that is given."""

import re
from ipaddress import IPv6Address
from typing import Final

from nablad.errors import InvalidRequestError

__all__ = ["ADDRESS_VARIABLE", "DEFAULT_ADDRESS", "is_socket", "parse_address"]

ADDRESS_VARIABLE: Final = "NABLA_SERVER"
DEFAULT_ADDRESS: Final = "127.0.0.1:7471"

_DEFAULT_PORT: Final = DEFAULT_ADDRESS.rpartition(":")[2]
_METRICS_PORT: Final = 7472
_MOST_PORT: Final = 65535
_SOCKETS: Final = ("unix:", "unix-abstract:")
# Names of gRPC's for what HOST:PORT means anyway.
_RESOLVERS: Final = ("dns:///", "ipv4:", "ipv6:")
_FORMS: Final = f"give HOST, HOST:PORT, [IPV6]:PORT or unix:PATH, such as {DEFAULT_ADDRESS}"
_HOST: Final = re.compile(r"[\w.-]+")


def parse_address(address: str) -> str:
    """The address as gRPC takes it: ``host:port``, ``[ipv6]:port``, ``unix:path`` or ``unix-abstract:name``.

    A port that is left out is 7471; gRPC itself would take that of web pages.

    Raises:
        InvalidRequestError: It is none; the message says what to give instead.
    """
    text = address.strip()
    if is_socket(text):
        if not text.partition(":")[2].strip("/"):
            raise _no_address(address, "names no socket")
        return text
    for resolver in _RESOLVERS:
        text = text.removeprefix(resolver)
    if not text:
        raise _no_address(address, "is empty")
    if "://" in text:
        raise _url(address, text)
    if "/" in text:
        raise _no_address(address, "has a path, but the service has none", text.partition("/")[0])
    host, port = _split(address, text)
    if not host:
        raise _no_address(address, "names no host", f"127.0.0.1:{port}")
    return f"{host}:{_port(address, port)}"


def is_socket(address: str) -> bool:
    """Returns whether the address is that of a socket of this machine, with no host and no port."""
    return address.startswith(_SOCKETS)


def _split(address: str, text: str) -> tuple[str, str]:
    """Host and port; a host of IPv6 in brackets."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            raise _no_address(address, "has no address of IPv6 in its brackets, or more behind them than a port")
        return f"[{host}]", rest[1:] if rest else _DEFAULT_PORT
    if text.count(":") > 1:
        if not _is_ipv6(text):
            raise _no_address(address, "has more than one colon, but is no address of IPv6")
        return f"[{text}]", _DEFAULT_PORT
    host, colon, port = text.partition(":")
    if not colon and host.isdecimal():
        raise _no_address(address, "is a port without a host", f"127.0.0.1:{host}")
    if host and not _HOST.fullmatch(host):
        raise _no_address(address, "has characters that no host has in its name")
    return host, port if colon else _DEFAULT_PORT


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _port(address: str, port: str) -> int:
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= _MOST_PORT):
        raise _no_address(address, f"should have a port from 1 to {_MOST_PORT} behind the colon, but has {port!r}")
    return int(port)


def _url(address: str, text: str) -> InvalidRequestError:
    scheme, _, rest = text.partition("://")
    tls = " and without TLS" if scheme.lower() in {"https", "grpcs"} else ""
    # Copied from the line about the metrics, this port is not the service's.
    meant = rest.rpartition("@")[2].partition("/")[0].removesuffix(f":{_METRICS_PORT}")
    return _no_address(address, f"is a URL, but the service speaks gRPC, without URLs{tls}", meant)


def _no_address(address: str, why: str, meant: str = "") -> InvalidRequestError:
    """`meant` is the address that was probably meant, if it is one."""
    hint = _FORMS
    if meant:
        try:
            parse_address(meant)
        except InvalidRequestError:
            pass
        else:
            hint = f"give {meant}"
    return InvalidRequestError(f"The address of the service, {address[:200]!r}, {why}: {hint}.")
