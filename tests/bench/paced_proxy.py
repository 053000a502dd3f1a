"""A TCP proxy that lets bytes through at a given rate, as a slow link does."""

from __future__ import annotations

import socket
import threading
import time

_PIECE = 64 << 10


class PacedProxy:
    """Forwards connections on a port of its own. A context manager: leaving it cuts them.

    The rate, in bytes a second, holds for all connections together, towards the client only.
    """

    def __init__(self, target: str, rate: float) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> PacedProxy:
        return self

    def __exit__(self, *_) -> None:
        for each in [self._listener, *self._sockets]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for source, sink, paced in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._forward, args=(source, sink, paced), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, paced: bool) -> None:
        try:
            while piece := source.recv(_PIECE):
                if paced:
                    self._wait_for(len(piece))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # an end was closed

    def _wait_for(self, count: int) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        time.sleep(max(0.0, begin - now))
