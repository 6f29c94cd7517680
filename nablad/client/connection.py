"""What all calls to a service go through."""

from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, Self, TypeVar

from nablad.client.channel import open_channel, resolve_address
from nablad.client.translation import translating
from nablad.v1 import datasets_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc

_Response = TypeVar("_Response")

PathName = str | PathLike[str]


class Connection:
    """A connection to a nablad service; may be shared by threads.

    Attributes:
        address: Where the service is, as ``host:port``.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 120.0,
        silence_s: float = 25.0,
    ) -> None:
        """Connects with the first call.

        Args:
            address: ``host``, ``host:port``, ``[ipv6]:port`` or ``unix:path``; a port that is left out is 7471.
                None: that of the environment variable NABLA_SERVER, else 127.0.0.1:7471.
            timeout_s: Seconds that a call with one answer may take. Streams have no limit, and calls that wait for
                checkpoints get two minutes at least.
            patience_s: Seconds that a watch tries to reach a service that it has lost.
            silence_s: Seconds after which a watch takes a service for lost that gives no sign of life. Below 17, the
                service takes the pings that this needs for an attack, and ends the connection.

        Raises:
            InvalidRequestError: The address is none.
        """
        self.address = resolve_address(address)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._channel = open_channel(self.address)
        # A connection of their own, where no file is before the pings that tell a silent service.
        self._watch_channel = open_channel(self.address, silence_s)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._watches = jobs_pb2_grpc.JobServiceStub(self._watch_channel)
        self._datasets = datasets_pb2_grpc.DatasetServiceStub(self._channel)
        self._models = models_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._watch_channel.close()
        self._channel.close()

    def _call(self, call: Callable[..., _Response], request: Any, *, at_least_s: float = 0.0) -> _Response:
        with translating(self.address):
            return call(request, timeout=max(self._timeout_s, at_least_s))

    def _pages(self, call: Callable[..., Any], request: Any) -> Iterator[Any]:
        while True:
            page = self._call(call, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
