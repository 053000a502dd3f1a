"""Lets one thread cancel the calls of another."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

_current = threading.local()


class Calls:
    """The calls that one thread makes. Other threads can cancel them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancels: List[Callable[[], Any]] = []
        self._is_cancelled = False

    def run(self, call: Callable[[], Any]) -> Any:
        """Runs `call` in this thread. cancel() cancels the calls that it makes."""
        _current.calls = self
        try:
            return call()
        finally:
            _current.calls = None

    def cancel(self) -> None:
        """Ends the current call, and every later one, with Cancelled."""
        with self._lock:
            self._is_cancelled = True
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel()

    @contextmanager
    def _reached_by(self, cancel: Callable[[], Any]) -> Iterator[None]:
        with self._lock:
            self._cancels.append(cancel)
            is_late = self._is_cancelled
        if is_late:
            cancel()
        try:
            yield
        finally:
            with self._lock:
                self._cancels.remove(cancel)


@contextmanager
def cancellable(cancel: Callable[[], Any]) -> Iterator[None]:
    """For a block that makes a call: while it runs, Calls.cancel() in another thread calls `cancel`."""
    calls = getattr(_current, "calls", None)
    if calls is None:
        yield
        return
    with calls._reached_by(cancel):
        yield
