"""Calls that another thread may end."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List

_current = threading.local()


class Calls:
    """What one thread calls, so that others can cancel it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancels: List[Callable[[], Any]] = []
        self._is_cancelled = False

    def run(self, call: Callable[[], Any]) -> Any:
        """Runs it in this thread; what it calls is cancelled with these calls."""
        _current.calls = self
        try:
            return call()
        finally:
            _current.calls = None

    def cancel(self) -> None:
        """Ends the call under way, with Cancelled, and every one that follows."""
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
    """Around a call that `cancel`, called from another thread, ends."""
    calls = getattr(_current, "calls", None)
    if calls is None:
        yield
        return
    with calls._reached_by(cancel):
        yield
