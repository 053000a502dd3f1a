"""Keeps an engine's weights up to date: stages, verifies and installs each version."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Sequence, Union

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
    """Keeps an engine at the newest version. Thread-safe; one refit runs at a time.

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
        deltas: bool = True,
        keep_base: bool = False,
        on_error: Optional[Callable[[Exception], Any]] = None,
        max_version_step: int = 0,
        accept_new_run: bool = False,
        filter: str = "",
        names: Sequence[str] = (),
        rules: Sequence["_refit.Rule"] = (),
        boxes: Optional[Mapping[str, "_refit.Box"]] = None,
        idle_timeout: float = 60.0,
        resume_within: float = 30.0,
        streams: Union[int, str] = 1,
        zone: Optional[str] = None,
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
                roll_back(). If it raises, the previous version counts as in use, so the engine must still have it. It
                should not keep tensors longer than needed.
            in_place: the tensors in use, by name, for an engine without memory for a second version: what has
                changed is verified first, and then applied at once; if `install` raises, it is taken back. Where the
                service cannot tell what has changed, and for the first version, the tensors are written as they come.
                While they are written the worker is `torn`, and reports that to the service. If it fails then, it
                stays torn until a whole version has been received.
            deltas: whether only what has changed since the version in use may come. That version is read meanwhile, so
                its tensors must still be there: it is used as long as the engine keeps every one of them, as they were
                given or as views of that memory (``load_state_dict(..., assign=True)``), or with `keep_base`. If the
                engine has changed any, what depends on them comes whole. With `in_place` they are the memory in
                use. Not on the service's host, where nothing moves anyway.
            keep_base: the worker keeps those tensors itself, for an engine that copies them, such as to a GPU: the
                memory of one more version on this host, all the time.
            on_error: called with errors while follow() continues.
            max_version_step: the largest step between version numbers of a run. 0: no limit.
            accept_new_run: whether to install lower version numbers when the service never had the one in use: the
                service has lost its memory, or the trainer was restarted without a larger trainer_epoch. If false, the
                worker keeps its version and calls `on_error` once.
            address, zone: as Subscriber's. A worker whose service is gone, too busy or behind goes on at the next one.
            model, worker, filter, names, rules, boxes, idle_timeout, resume_within, streams: as Subscriber's and its
                pull()'s.
            others: as Publisher's.
        """
        self.address = address
        self.model = model
        given = dict(in_place or {})
        pull = selection(
            model,
            filter=filter,
            names=names,
            rules=rules,
            boxes=boxes,
            worker=worker,
            idle_timeout=idle_timeout,
            resume_within=resume_within,
            streams=streams,
        )
        channel = make_channel(
            address,
            zone=zone,
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
                targets=targets_of(given),
                in_place=in_place is not None,
                deltas=deltas,
                keep_base=keep_base,
                max_version_step=max_version_step,
                accept_new_run=accept_new_run,
                install=lambda result, memories: install(PulledVersion(result, memories, given)),
                on_error=on_error,
            )
        )

    def follow(self, until: Optional[Callable[[], bool]] = None) -> None:
        """Stages each new version while it is pushed, and installs it once it is committed. Ends when another thread
        calls stop(), or when `until()`, called after each install, returns true. Continues after restarts of the
        service. Ctrl-C ends the worker with the previous version in use."""
        with cancellable(self.stop):
            self._native.follow(until)

    def refit(self, version: Optional[int] = None, *, trainer_epoch: Optional[int] = None) -> VersionInfo:
        """Stages and installs the newest committed version now, or the given one (of the given run of the trainer).
        Errors of `install` are raised.

        Raises:
            FailedPrecondition: the version is older than the one in use (see roll_back), the one in use is of another
                run (see accept_new_run), or installs of the version are held.
            RefitError: as Subscriber.pull().
        """
        number = None if version is None else version_number(version)
        with cancellable(self.stop):
            return VersionInfo.of(self._native.refit(number, epoch_number(trainer_epoch)))

    def roll_back(self) -> VersionInfo:
        """Installs the previous version again if the service still retains it. FailedPrecondition if there was none."""
        with cancellable(self.stop):
            return VersionInfo.of(self._native.roll_back())

    def wait_for(self, version: int, timeout: float = 60.0, *, trainer_epoch: Optional[int] = None) -> None:
        """Waits until this version, or a later one of the same run, is in use. Without `trainer_epoch`, of the newest
        run that the worker knows of. DeadlineExceeded, naming the version in use, if it takes too long."""
        with cancellable(self.stop):
            self._native.wait_for(version_number(version), timeout, epoch_number(trainer_epoch))

    @property
    def installed(self) -> Optional[int]:
        """The version in use. None before the first, and while torn."""
        return self._native.installed()

    @property
    def of_other_run(self) -> bool:
        """Whether the service never had the version in use, as far as that is known; see `accept_new_run`."""
        return self._native.of_other_run()

    @property
    def torn(self) -> bool:
        """Whether tensors given as `in_place` hold parts of two versions."""
        return self._native.torn()

    @property
    def name(self) -> str:
        """This worker's name at the service."""
        return self._native.name()

    def __repr__(self) -> str:
        return f"refit.Worker({self.address!r}, model={self.model!r}, name={self.name!r})"

    def stop(self) -> None:
        """Ends follow() and all other calls, with the previous version in use. The worker cannot be used again. From
        any thread."""
        self._native.stop()
