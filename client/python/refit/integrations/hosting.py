"""The service that a plug starts in the trainer's process, where none is given."""

from __future__ import annotations

import socket
from typing import Any, Dict, Mapping, Optional

from refit.service import Service, serve

_ANY_HOST = ("0.0.0.0", "[::]")


class Hosting:
    """At most one service, at an address that can be told to others before it runs."""

    def __init__(self, options: Optional[Mapping[str, Any]] = None, advertise: str = ""):
        """
        Args:
            options: of refit.serve(). Without ``listen`` the service is for this host alone; for others it takes
                ``{"listen": "0.0.0.0:0"}`` and TLS, or ``"allow_plaintext": True``.
            advertise: host name or address by which others reach this host; default: the one it has on its network.
        """
        self._options: Dict[str, Any] = dict(options or {})
        self._listen = ""
        self._advertise = advertise
        self._service: Optional[Service] = None

    def reserve(self) -> str:
        """Where others will reach the service, once start() was called: "host:port", or a socket's path."""
        if not self._listen:
            self._listen = _with_port(self._options.get("listen", "127.0.0.1:0"))
        return self._reached_at(self._listen)

    def start(self) -> str:
        """Starts the service if it does not run. The address, as reserve().

        Raises:
            InvalidArgument, Unavailable: as refit.serve().
        """
        address = self.reserve()
        if self._service is None:
            try:
                self._service = serve(**{**self._options, "listen": self._listen})
            except BaseException:
                self._listen = ""  # the port may have been taken meanwhile: the next start has another
                raise
        return address

    def close(self) -> None:
        """Ends the service. The next one has another address, unless its port was given. Idempotent."""
        if self._service is not None:
            self._service.close()
        self._service = None
        self._listen = ""

    def _reached_at(self, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if listen.startswith("unix:") or not colon:
            return listen
        if self._advertise:
            return f"{self._advertise}:{port}"
        return f"{_own_address()}:{port}" if host in _ANY_HOST else listen


def _with_port(listen: str) -> str:
    """`listen` with a free port in the place of port 0."""
    host, _, port = listen.rpartition(":")
    if port != "0" or listen.startswith("unix:"):
        return listen
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host.strip("[]"), 0))
        return f"{host}:{probe.getsockname()[1]}"


def _own_address() -> str:
    """This host's address on the network with the default route (nothing is sent); without one, loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
