"""Versions pulled beside an engine that goes on, for plugs whose engine says itself when one is installed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

from refit.calls import Calls
from refit.errors import Aborted, DeadlineExceeded, FailedPrecondition, RefitError
from refit.integrations.shared.failures import told
from refit.publisher import Publisher
from refit.pulled_version import PulledVersion
from refit.subscriber import Subscriber
from refit.worker import Worker

Key = Tuple[int, int]  # (trainer_epoch, number)

# The engine waits for this pull: a service that is gone should be told soon. What is pulled ahead may take longer.
_RESUME_WITHIN = 1.0
_CONNECT_WITHIN = 3.0
# Between two looks for a version that is newer than the one held, seconds.
_LOOK = 0.5
_WORKERS_OWN = ("worker", "idle_timeout")


class Ahead:
    """A worker of the service's fleet that stages each new version while it is pushed, and holds it, verified, until
    the engine takes it or a newer one is committed. A version that is not at hand is pulled when it is asked for.

    take() is for one thread at a time.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "default",
        worker: str = "",
        timeout: float = 60.0,
        is_ahead: bool = True,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """Connects.

        Args:
            worker: what the service calls this worker; default: host and process.
            timeout: patience for each word of the service, seconds.
            is_ahead: False: pull only what is asked for, without memory for a version that nobody may ask for.
            channel: the connection's options, see refit.Subscriber.
        Raises:
            Unavailable: naming the address, if there is no service.
        """
        options: Dict[str, Any] = dict(channel or {}, model=model, worker=worker)
        self._timeout = timeout
        patience = min(options.get("connect_timeout", _CONNECT_WITHIN), _CONNECT_WITHIN)
        impatient = dict(options, connect_timeout=patience)
        self._connect = partial(Subscriber, address, **impatient)
        self.is_ahead = is_ahead
        self._installed: Optional[Key] = None
        self._make_follower = partial(_Follower, address, dict(impatient, idle_timeout=timeout))
        self._follower: Optional[_Follower] = None
        if is_ahead:
            self._follower = _Follower(address, dict(options, idle_timeout=timeout), None)
        else:
            self._connect().close()

    @contextmanager
    def take(self, number: int, trainer_epoch: Optional[int], deadline: float) -> Iterator[PulledVersion]:
        """The version, to be installed in the block: the service hears that it was, or of what the block raised.

        Args:
            deadline: seconds until it must be there. What is pulled ahead goes on after that.
        Raises:
            DeadlineExceeded: it has not come whole; ask again.
            RefitError: as Subscriber.pull().
        """
        follower = self._present_follower()
        version = self._get(follower, number, trainer_epoch, deadline)
        try:
            yield version
        except BaseException as error:
            if follower is not None:
                follower.settle(version, error)
            raise
        self._installed = _key(version)
        if follower is not None and not follower.settle(version, None):
            follower.close()  # what it has told the service of is not in use any more
            self._follower = None
            self._present_follower()

    def pull(self, number: int, trainer_epoch: Optional[int]) -> PulledVersion:
        """The version, now. As Subscriber.pull(). Over a connection of its own: one that has failed waits longer and
        longer before it looks whether the service is back."""
        with self._connect() as subscriber:
            return subscriber.pull(
                number, trainer_epoch=trainer_epoch, idle_timeout=self._timeout, resume_within=_RESUME_WITHIN
            )

    def close(self) -> None:
        """Ends what is under way. Idempotent."""
        if self._follower is not None:
            self._follower.close()
        self._follower = None

    def _present_follower(self) -> Optional["_Follower"]:
        """A new one where the last has nothing true to tell any more."""
        if self._follower is None and self.is_ahead:
            try:
                self._follower = self._make_follower(self._installed)
            except RefitError:  # the pull that follows says what is wrong
                pass
        return self._follower

    def _get(
        self, follower: Optional["_Follower"], number: int, trainer_epoch: Optional[int], deadline: float
    ) -> PulledVersion:
        """From the follower if it has it first, else pulled now."""
        if follower is None:
            return self._get_now(number, trainer_epoch, deadline, _Arrival(number))
        arrival = _Arrival(number)
        with follower.told_to(arrival, number, trainer_epoch):
            return arrival.wait(0) if arrival.is_here else self._get_now(number, trainer_epoch, deadline, arrival)

    def _get_now(
        self, number: int, trainer_epoch: Optional[int], deadline: float, arrival: "_Arrival"
    ) -> PulledVersion:
        pull = _InThread(partial(self.pull, number, trainer_epoch), arrival)
        try:
            return arrival.wait(deadline)
        finally:
            pull.end()


class _Arrival:
    """Of one version, from whoever has it first."""

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


class _InThread:
    """A pull in a thread of its own, so that the wait for it can end before it does."""

    def __init__(self, pull: Callable[[], PulledVersion], arrival: _Arrival):
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


class _Follower:
    """A refit.Worker whose installs wait until the engine has done them."""

    def __init__(self, address: str, options: Mapping[str, Any], installed: Optional[Key]):
        """`installed` is in use already, however it came."""
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
        # Not a subscriber: whoever watches counts as one of the fleet.
        self._publisher = Publisher(address, **{name: options[name] for name in options if name not in _WORKERS_OWN})
        self._calls = Calls()
        self._thread = threading.Thread(
            target=partial(self._calls.run, self._worker.follow), name="refit-ahead", daemon=True
        )
        self._thread.start()

    @contextmanager
    def told_to(self, arrival: _Arrival, number: int, trainer_epoch: Optional[int]) -> Iterator[None]:
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
        """The engine has installed this version, or failed to. False if the service will not hear that it is in use."""
        key = _key(version)
        with self._changed:
            if error is None:
                self._installed = key
            if self._held is not None and _key(self._held) == key:
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
            self._last = _key(version)
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
        """What is held gives way to a newer version, also to one that is only being pushed."""
        try:
            newest = self._publisher.last_run()
        except RefitError:  # the service is gone; the worker asks for it too
            return
        with self._changed:
            if self._held is not None and not self._is_taken and newest > _key(self._held):
                self._dismiss(f"there is version {newest[1]} of run {newest[0]}")


def _key(version: PulledVersion) -> Key:
    return version.info.trainer_epoch, version.number


def _is(version: PulledVersion, number: int, trainer_epoch: Optional[int]) -> bool:
    return version.number == number and trainer_epoch in (None, version.info.trainer_epoch)


def _without_its_frames(error: Optional[BaseException]) -> Optional[RefitError]:
    """The same words for the service, without what the engine's exception keeps alive."""
    if error is None:
        return None
    if isinstance(error, RefitError):
        return type(error)(error.message, error.tensor, error.version)
    return FailedPrecondition(told(error))
