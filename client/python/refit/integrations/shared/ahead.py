"""Versions pulled beside a running engine. For plugs whose engine decides itself when a version is installed."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Any, Dict, Iterator, Mapping, Optional

from refit.errors import RefitError
from refit.integrations.shared.arrival import Arrival, PullThread
from refit.integrations.shared.base import base_after
from refit.integrations.shared.follower import Follower, Key, key_of
from refit.pulled_version import PulledVersion
from refit.subscriber import Subscriber

# The engine stands still during such a pull: a service that is gone is reported soon. Pulls ahead may take longer.
_RESUME_WITHIN = 1.0
_CONNECT_WITHIN = 3.0


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
        keep_base: bool = False,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """Connects.

        Args:
            worker: what the service calls this worker; default: host and process.
            timeout: patience for each word of the service, seconds.
            is_ahead: False: pull only what is asked for, without memory for a version that nobody may ask for.
            keep_base: the version in use is kept in this host's memory, so that of the next one only the changes come.
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
        self._keep_base = keep_base
        self._base: Optional[PulledVersion] = None  # where no follower has one of its own
        of_worker: Dict[str, Any] = dict(idle_timeout=timeout, keep_base=keep_base)
        self._make_follower = partial(Follower, address, dict(impatient, **of_worker))
        self._follower: Optional[Follower] = None
        if is_ahead:
            self._follower = Follower(address, dict(options, **of_worker), None)
        else:
            self._connect().close()

    @contextmanager
    def take(self, number: int, trainer_epoch: Optional[int], deadline: float) -> Iterator[PulledVersion]:
        """The version, to be installed in the block. The service hears that it was installed, or what the block raised.

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
        self._installed = key_of(version)
        self._base = base_after(version, keep=self._keep_base and follower is None)
        if follower is not None and not follower.settle(version, None):
            follower.close()  # it has reported another version as installed
            self._follower = None
            self._present_follower()

    def pull(self, number: int, trainer_epoch: Optional[int]) -> PulledVersion:
        """The version, now. As Subscriber.pull(). Over a new connection: one that has failed tries again at longer and
        longer intervals only."""
        with self._connect() as subscriber:
            return subscriber.pull(
                number,
                trainer_epoch=trainer_epoch,
                base=self._base,
                idle_timeout=self._timeout,
                resume_within=_RESUME_WITHIN,
            )

    def close(self) -> None:
        """Ends what is under way. Idempotent."""
        if self._follower is not None:
            self._follower.close()
        self._follower = None
        self._base = None

    def _present_follower(self) -> Optional[Follower]:
        """A new one if the last was closed."""
        if self._follower is None and self.is_ahead:
            try:
                self._follower = self._make_follower(self._installed)
            except RefitError:  # the pull that follows says what is wrong
                pass
        return self._follower

    def _get(
        self, follower: Optional[Follower], number: int, trainer_epoch: Optional[int], deadline: float
    ) -> PulledVersion:
        """From the follower or from a pull that begins now, whichever has it first."""
        if follower is None:
            return self._get_now(number, trainer_epoch, deadline, Arrival(number))
        arrival = Arrival(number)
        with follower.told_to(arrival, number, trainer_epoch):
            return arrival.wait(0) if arrival.is_here else self._get_now(number, trainer_epoch, deadline, arrival)

    def _get_now(self, number: int, trainer_epoch: Optional[int], deadline: float, arrival: Arrival) -> PulledVersion:
        pull = PullThread(partial(self.pull, number, trainer_epoch), arrival)
        try:
            return arrival.wait(deadline)
        finally:
            pull.end()
