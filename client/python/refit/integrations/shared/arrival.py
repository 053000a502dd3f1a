"""A version that may come from several pulls: the first one counts."""

from __future__ import annotations

import threading
from typing import Callable, Optional

from refit.calls import Calls
from refit.errors import DeadlineExceeded
from refit.pulled_version import PulledVersion


class Arrival:
    """Of one version. The first result counts, a version or an error."""

    def __init__(self, number: int):
        self._number = number
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._version: Optional[PulledVersion] = None
        self._error: Optional[BaseException] = None

    def settle(self, version: Optional[PulledVersion], error: Optional[BaseException] = None) -> None:
        with self._lock:
            if not self._event.is_set():
                self._version, self._error = version, error
                self._event.set()

    @property
    def is_here(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> PulledVersion:
        if not self._event.wait(seconds):
            self.settle(
                None,
                DeadlineExceeded(
                    f"version {self._number}: it has not come whole within {seconds:g} s; the engine goes on with the "
                    "version before; ask again, or with a longer deadline",
                    version=self._number,
                ),
            )
        if self._version is None:
            assert self._error is not None
            raise self._error
        return self._version


class PullThread:
    """A pull in a thread of its own, so that the wait for it can end before it does."""

    def __init__(self, pull: Callable[[], PulledVersion], arrival: Arrival):
        self._pull = pull
        self._arrival = arrival
        self._calls = Calls()
        self._thread = threading.Thread(target=self._run, name="refit-pull", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            version = self._calls.run(self._pull)
        except BaseException as error:  # the waiting thread's to handle
            self._arrival.settle(None, error)
        else:
            self._arrival.settle(version)

    def end(self) -> None:
        self._calls.cancel()
        self._thread.join()
