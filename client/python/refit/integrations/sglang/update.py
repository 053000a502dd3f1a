"""A version that SGLang's workers are told to load, and its pull."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, Optional

from refit.calls import Calls
from refit.errors import Cancelled, DeadlineExceeded, InvalidArgument
from refit.pulled_version import PulledVersion
from refit.subscriber import Subscriber

# Options that are the pull's; those that are not Update's own either are the connection's.
_OF_PULL = ("trainer_epoch", "filter", "names", "idle_timeout", "resume_within", "copy")
_OWN = ("allow_partial", "keep_base", "pull_within", "agree_within")
_PATIENCE = {"idle_timeout": 10.0, "resume_within": 5.0}
_CONNECT_TIMEOUT = 5.0


@dataclass
class Update:
    """A version to load.

    Attributes:
        address, number: which one.
        connection, pull: options of Subscriber and of its pull().
        allow_partial: it may lack tensors that former versions had, or bring new ones. Versions that are pulled in part
            (`filter`, `names`) always may.
        keep_base: it is kept in the host's memory, so that of the next one only the changes come.
        pull_within: seconds in which it must be here, all of it: the engine stands still meanwhile.
        agree_within: seconds in which all workers must have it.
    """

    address: str
    number: int
    connection: Dict[str, Any] = field(default_factory=dict)
    pull: Dict[str, Any] = field(default_factory=dict)
    allow_partial: bool = False
    keep_base: bool = False
    pull_within: float = 60.0
    agree_within: float = 120.0

    @classmethod
    def of(cls, address: str, number: int, options: Dict[str, Any]) -> "Update":
        """From a descriptor's options.

        Raises:
            InvalidArgument: naming one that has to be a number of seconds.
        """
        for name in ("pull_within", "agree_within"):
            if not isinstance(options.get(name, 1), (int, float)):
                raise InvalidArgument(f"version {number}: {name} {options[name]!r}: expected seconds", version=number)
        rest = dict(options)
        pull = {**_PATIENCE, **{name: rest.pop(name) for name in _OF_PULL if name in rest}}
        own = {name: rest.pop(name) for name in _OWN if name in rest}
        return cls(address, number, {"connect_timeout": _CONNECT_TIMEOUT, **rest}, pull, **own)

    @property
    def is_partial(self) -> bool:
        return bool(self.allow_partial or self.pull.get("filter") or self.pull.get("names"))

    def __str__(self) -> str:
        return f"version {self.number} of {self.address}"


def pulled(wanted: Update, base: Optional[PulledVersion] = None) -> PulledVersion:
    """The version, within `pull_within` seconds, of `base` if it is still here. The pull's own patience would not do: while a version is pushed
    slowly, the service sends word all the time."""
    calls = Calls()
    timer = threading.Timer(wanted.pull_within, calls.cancel)
    timer.daemon = True
    timer.start()
    try:
        return calls.run(partial(_pull_whole, wanted, base))
    except Cancelled:
        if not timer.finished.is_set():
            raise
        raise DeadlineExceeded(
            f"{wanted} has not come whole within {wanted.pull_within:g} s; see that it is committed, or raise "
            "pull_within",
            version=wanted.number,
        ) from None
    finally:
        timer.cancel()


def _pull_whole(wanted: Update, base: Optional[PulledVersion]) -> PulledVersion:
    try:
        with Subscriber(wanted.address, **wanted.connection) as subscriber:
            return subscriber.pull(wanted.number, base=base, **wanted.pull)
    except TypeError as error:
        raise InvalidArgument(f"descriptor of version {wanted.number}: {error}", version=wanted.number) from None
