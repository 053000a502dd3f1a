"""A worker of the service's fleet that stages versions and holds each until its engine has installed it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple

from refit.calls import Calls
from refit.errors import Aborted, FailedPrecondition, RefitError
from refit.integrations.shared.arrival import Arrival
from refit.integrations.shared.failures import told
from refit.publisher import Publisher
from refit.pulled_version import PulledVersion
from refit.worker import Worker

Key = Tuple[int, int]  # (trainer_epoch, number)

# Between two looks for a version that is newer than the one held, seconds.
_LOOK = 0.5
_WORKERS_OWN = ("worker", "idle_timeout", "keep_base")


class Follower:
    """A refit.Worker whose installs wait until the engine has done them.

    Its install() runs in a thread of its own and waits there, with the version held. The engine's thread takes that
    version and says with settle() how it went.
    """

    def __init__(self, address: str, options: Mapping[str, Any], installed: Optional[Key]):
        """`installed`: the version that the engine has already."""
        self._changed = threading.Condition()
        # Guarded by _changed.
        self._held: Optional[PulledVersion] = None
        self._is_taken = False  # what is held; the engine installs it
        self._outcome: Optional[RefitError] = None  # of what was held
        self._installed = installed
        self._last: Key = (0, -1)  # that was held, or is in use
        self._awaited: Optional[Callable[[PulledVersion], None]] = None
        self._closed = threading.Event()
        self._worker = Worker(address, install=self._hold, accept_new_run=True, **options)
        # Not a Subscriber: while that watches, the service counts it as another worker.
        self._publisher = Publisher(address, **{name: options[name] for name in options if name not in _WORKERS_OWN})
        self._calls = Calls()
        self._thread = threading.Thread(
            target=partial(self._calls.run, self._worker.follow), name="refit-ahead", daemon=True
        )
        self._thread.start()

    @contextmanager
    def told_to(self, arrival: Arrival, number: int, trainer_epoch: Optional[int]) -> Iterator[None]:
        """If this version is held, or comes meanwhile, `arrival` hears of it."""

        def tell(version: PulledVersion) -> None:
            if _is(version, number, trainer_epoch):
                self._is_taken = True
                arrival.settle(version)

        with self._changed:
            self._awaited = tell
            if self._held is not None:
                tell(self._held)
        try:
            yield
        except BaseException:
            with self._changed:
                self._is_taken = False
            raise
        finally:
            with self._changed:
                self._awaited = None

    def settle(self, version: PulledVersion, error: Optional[BaseException]) -> bool:
        """The engine has installed this version, or failed to. False if the service will not be told that it is in
        use."""
        key = key_of(version)
        with self._changed:
            if error is None:
                self._installed = key
            if self._held is not None and key_of(self._held) == key:
                self._end_hold(_without_its_frames(error))
                return True
            return error is not None or key > self._last

    def close(self) -> None:
        with self._changed:
            self._closed.set()
            self._dismiss("the engine's connection was closed")
        self._worker.stop()
        self._calls.cancel()
        self._thread.join()
        self._publisher.close()

    def _hold(self, version: PulledVersion) -> None:
        """The worker's install. Waits for settle(), or until it is not wanted any more."""
        with self._changed:
            self._last = key_of(version)
            if self._last == self._installed:
                return
            self._held, self._is_taken = version, False
            if self._awaited is not None:
                self._awaited(version)
            if self._closed.is_set():
                self._dismiss("the engine's connection was closed")
        while not self._is_settled(version, _LOOK):
            self._make_room()
        with self._changed:
            outcome = self._outcome
        if outcome is not None:
            raise outcome

    def _is_settled(self, version: PulledVersion, seconds: float) -> bool:
        """It is not held any more, or not after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held is not version, seconds)

    def _dismiss(self, why: str) -> None:
        """With _changed held."""
        if self._held is not None:
            number = self._held.number
            self._end_hold(Aborted(f"version {number}: staged, and not installed: {why}", version=number))

    def _end_hold(self, outcome: Optional[RefitError]) -> None:
        """With _changed held."""
        self._held, self._outcome = None, outcome
        self._changed.notify_all()

    def _make_room(self) -> None:
        """Drops the held version if there is a newer one, also if that is only being pushed."""
        try:
            newest = self._publisher.last_run()
        except RefitError:  # the service is gone; the worker asks for it too
            return
        with self._changed:
            if self._held is not None and not self._is_taken and newest > key_of(self._held):
                self._dismiss(f"there is version {newest[1]} of run {newest[0]}")


def key_of(version: PulledVersion) -> Key:
    return version.info.trainer_epoch, version.number


def _is(version: PulledVersion, number: int, trainer_epoch: Optional[int]) -> bool:
    return version.number == number and trainer_epoch in (None, version.info.trainer_epoch)


def _without_its_frames(error: Optional[BaseException]) -> Optional[RefitError]:
    """The error in the same words, for the service. The traceback of the engine's would keep its tensors alive."""
    if error is None:
        return None
    if isinstance(error, RefitError):
        return type(error)(error.message, error.tensor, error.version)
    return FailedPrecondition(told(error))
