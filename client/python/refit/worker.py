"""An engine's weights: each version staged beside the one in use, verified, and installed in one step."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Sequence

from refit import _refit
from refit.calls import cancellable
from refit.channel import connect, make_channel
from refit.intake import targets_of
from refit.pulled_version import PulledVersion
from refit.selection import selection
from refit.unpicklable import Unpicklable
from refit.version import VersionInfo
from refit.version_number import epoch_number, version_number


class Worker(Unpicklable):
    """Keeps an engine at the newest version. Thread-safe; one refit goes on at a time.

    ::

        worker = refit.Worker("host:port", install=lambda version: model.load_weights(version))
        worker.follow()
    """

    def __init__(
        self,
        address: str,
        *,
        install: Callable[[Any], Any],
        model: str = "default",
        worker: str = "",
        in_place: Optional[Mapping[str, Any]] = None,
        on_error: Optional[Callable[[Exception], Any]] = None,
        max_version_step: int = 0,
        accept_new_run: bool = False,
        filter: str = "",
        names: Sequence[str] = (),
        rules: Sequence["_refit.Rule"] = (),
        boxes: Optional[Mapping[str, "_refit.Box"]] = None,
        idle_timeout: float = 60.0,
        resume_within: float = 30.0,
        transport: str = "auto",
        connect_timeout: float = 10.0,
        ca: Optional[str] = None,
        certificate: Optional[str] = None,
        key: Optional[str] = None,
        server_name: Optional[str] = None,
        token_file: Optional[str] = None,
    ):
        """Connects.

        Args:
            install: puts a staged version (a PulledVersion) into use, in the thread that called follow(), refit() or
                roll_back(). If it raises, the version before stays in use, and must still be in the engine. It should keep no
                tensor longer than it needs.
            in_place: the tensors in use, by name, for an engine without memory for a second version: they are written
                directly. Meanwhile the worker is `torn`, and says so to the service; a failure leaves it so until a whole
                version has come.
            on_error: hears, while follow() goes on, of what went wrong.
            max_version_step: how far version numbers of a run may leap. 0: no limit.
            accept_new_run: a service that has lost its memory, or a trainer that was started anew without a larger
                trainer_epoch, offers lower numbers than the one in use, which the service never had. Without, the worker
                stays with what it has, and `on_error` hears so, once; with, it takes what is offered.
            model, worker, filter, names, rules, boxes, idle_timeout, resume_within: as Subscriber's and its pull()'s.
            others: as Publisher's.
        """
        self.address = address
        self.model = model
        pull = selection(
            model,
            filter=filter,
            names=names,
            rules=rules,
            boxes=boxes,
            worker=worker,
            idle_timeout=idle_timeout,
            resume_within=resume_within,
        )
        channel = make_channel(
            address,
            transport=transport,
            connect_timeout=connect_timeout,
            ca=ca,
            certificate=certificate,
            key=key,
            server_name=server_name,
            token_file=token_file,
        )
        self._native = connect(
            lambda flag: _refit.Worker(
                channel=channel,
                cancel=flag,
                pull=pull,
                targets=targets_of(in_place),
                in_place=in_place is not None,
                max_version_step=max_version_step,
                accept_new_run=accept_new_run,
                install=lambda result, memories: install(PulledVersion(result, memories)),
                on_error=on_error,
            )
        )

    def follow(self, until: Optional[Callable[[], bool]] = None) -> None:
        """Stages each new version while it is pushed, and installs it once it is committed, until stop() is called (from
        another thread), or `until()`, asked after each install, says so. Survives the service's restarts. Ctrl-C ends the
        worker, with the version before in use."""
        with cancellable(self.stop):
            self._native.follow(until)

    def refit(self, version: Optional[int] = None, *, trainer_epoch: Optional[int] = None) -> VersionInfo:
        """Stages and installs the newest committed version, or this one (of this run of the trainer), now. What `install`
        raises comes out.

        Raises:
            FailedPrecondition: it is older than the one in use (see roll_back), that one is of another run (see
                accept_new_run), or it holds its installs.
            RefitError: as Subscriber.pull().
        """
        number = None if version is None else version_number(version)
        with cancellable(self.stop):
            return VersionInfo.of(self._native.refit(number, epoch_number(trainer_epoch)))

    def roll_back(self) -> VersionInfo:
        """Installs the version that was in use before, while the service retains it. FailedPrecondition if none was."""
        with cancellable(self.stop):
            return VersionInfo.of(self._native.roll_back())

    def wait_for(self, version: int, timeout: float = 60.0, *, trainer_epoch: Optional[int] = None) -> None:
        """Until this version or a later one of the same run is in use: of this one, or else of the newest that the worker has
        heard of. DeadlineExceeded, naming the one that is in use, if it does not come."""
        with cancellable(self.stop):
            self._native.wait_for(version_number(version), timeout, epoch_number(trainer_epoch))

    @property
    def installed(self) -> Optional[int]:
        """The version in use; None before the first, and while torn."""
        return self._native.installed()

    @property
    def of_other_run(self) -> bool:
        """The version in use is one that the service never had, as far as that is known: see `accept_new_run`."""
        return self._native.of_other_run()

    @property
    def torn(self) -> bool:
        """Tensors given as `in_place` hold parts of two versions."""
        return self._native.torn()

    @property
    def name(self) -> str:
        """What the service calls it."""
        return self._native.name()

    def __repr__(self) -> str:
        return f"refit.Worker({self.address!r}, model={self.model!r}, name={self.name!r})"

    def stop(self) -> None:
        """Ends follow(), and every call under way, with the version before in use. For good; from any thread."""
        self._native.stop()
