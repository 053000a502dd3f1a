"""Options and pools of connections to a service."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional

from refit import _refit
from refit.calls import cancellable
from refit.errors import Cancelled, RefitError


def make_channel(
    address: str,
    *,
    zone: Optional[str] = None,
    transport: str = "auto",
    connect_timeout: float = 10.0,
    ca: Optional[str] = None,
    certificate: Optional[str] = None,
    key: Optional[str] = None,
    server_name: Optional[str] = None,
    token_file: Optional[str] = None,
) -> "_refit.Channel":
    """Options of a connection; see Publisher."""
    security = dict(ca=ca, certificate=certificate, key=key, server_name=server_name, token_file=token_file)
    return _refit.Channel(
        address=address, zone=zone or "", transport=transport, connect_timeout=connect_timeout, security=security
    )


def connect(make: Callable[["_refit.CancelFlag"], Any]) -> Any:
    """Connects with `make` and returns the connection. `make` gets a flag, and must end when that is cancelled."""
    flag = _refit.CancelFlag()
    with cancellable(flag.cancel):
        return make(flag)


class Connections:
    """A pool of connections. A new one is made if none is free. Each serves one call at a time, so that a call can be
    cancelled without the others. Thread-safe."""

    def __init__(self, connect: Callable[["_refit.CancelFlag"], Any]):
        self._connect = connect
        self._free: List[Any] = []

    def open(self) -> Any:
        try:
            return self._free.pop()
        except IndexError:
            pass  # what follows may fail, and must not look as if this were the cause
        return connect(self._connect)

    def give_back(self, connection: Any) -> None:
        self._free.append(connection)

    @contextmanager
    def one(self) -> Iterator[Any]:
        """A connection for one call. A connection whose call was cancelled is not reused."""
        connection = self.open()
        try:
            with cancellable(connection.cancel):
                yield connection
        except RefitError as error:
            if not isinstance(error, Cancelled):
                self.give_back(connection)
            raise
        self.give_back(connection)

    def close(self) -> None:
        self._free.clear()
