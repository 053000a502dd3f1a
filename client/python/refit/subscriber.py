"""The worker's client: pulls and follows versions."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from refit import _refit
from refit.base import base_of
from refit.channel import Connections, make_channel
from refit.intake import targets_of
from refit.progress import OnProgress, told_to
from refit.pulled_version import PulledVersion
from refit.selection import selection
from refit.unpicklable import Unpicklable
from refit.version import VersionInfo
from refit.version_number import epoch_number, version_number
from refit.worker import Worker


class Subscriber(Unpicklable):
    """A worker's connection to a service. Thread-safe: calls that run at the same time have a connection each.

    ::

        sub = refit.Subscriber("host:port")
        for name, tensor in sub.pull("latest"):
            ...
        sub.follow(install=lambda v: model.load_weights(v))
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "default",
        worker: str = "",
        zone: Optional[str] = None,
        transport: str = "auto",
        connect_timeout: float = 10.0,
        ca: Optional[str] = None,
        certificate: Optional[str] = None,
        key: Optional[str] = None,
        server_name: Optional[str] = None,
        token_file: Optional[str] = None,
    ):
        """Connects. Arguments and errors as Publisher's. `worker` is this worker's name at the service; the default is
        its address, or host and process if it follows. The service distinguishes two followers of one name.

        `address` may be several with commas between, "a:1,b:2", of services with the same versions, such as relays. The
        first is used; when it is down, too busy or behind, the next, and a pull goes on there with what it has.
        "dns:///name:port" stands for all addresses of the name. With `zone`, services that say that they are in it
        (refit-server --zone) come first."""
        self.address = address
        self.model = model
        self.worker = worker
        self._channel_options: Dict[str, Any] = dict(
            zone=zone,
            transport=transport,
            connect_timeout=connect_timeout,
            ca=ca,
            certificate=certificate,
            key=key,
            server_name=server_name,
            token_file=token_file,
        )
        channel = make_channel(address, **self._channel_options)
        self._connections = Connections(lambda flag: _refit.Subscriber(channel, flag))
        self._connections.give_back(self._connections.open())

    def pull(
        self,
        version: Union[int, str] = "latest",
        *,
        trainer_epoch: Optional[int] = None,
        out: Optional[Mapping[str, Any]] = None,
        filter: str = "",
        names: Sequence[str] = (),
        rules: Sequence["_refit.Rule"] = (),
        boxes: Optional[Mapping[str, "_refit.Box"]] = None,
        copy: bool = False,
        base: Optional[PulledVersion] = None,
        installed: Optional[int] = None,
        idle_timeout: float = 60.0,
        resume_within: float = 30.0,
        streams: Union[int, str] = 1,
        progress: Union[bool, OnProgress, None] = None,
    ) -> PulledVersion:
        """Pulls a whole version and verifies it, or raises. Waits for a version that is still being pushed.

        Args:
            version: a number, or "latest": the newest committed one.
            trainer_epoch: only versions of this run of the trainer. Default: the newest run that has the version.
            out: memory to receive into, by name, such as a state dict. Its CPU tensors must have the dtypes and shapes
                of the version, which is checked before the first byte is written. If the pull fails later, they hold
                parts of both versions; the exception's `torn` says so.
            filter: RE2 pattern that is searched in the names.
            names: only these tensors.
            rules: cut tensors into parts; only the bytes of those parts are sent.
            boxes: parts of single tensors, by name.
            copy: the tensors get memory of this process. By default, the memory of a service on this host is mapped.
            base: what an earlier pull of the same selection returned, and whose tensors are still there. Where the service
                has the same version, only what has changed since comes. The tensors are read, and may be the ones in
                `out`. If anything has changed them, what depends on them comes whole. `traffic` tells what was saved,
                or why nothing was. On the service's host nothing moves with or without it.
            installed: the version in use; `skipped` then counts the versions in between.
            idle_timeout: seconds without a message from the service.
            resume_within: if the connection breaks, the pull continues where it was, unless that takes longer than this
                many seconds.
            streams: over how many connections it comes, where one is slower than the link; "auto": as many as pay, which
                this connection remembers.
            progress: True for a bar, or a function that is called with (bytes done, bytes in all).
        Raises:
            NotFound: no such version, no version yet, or a filter that selects no tensor.
            InvalidArgument: naming the tensor that `out` lacks, or has in another dtype or shape; or `base` is no result
                of a pull.
            DataLoss: naming the tensor whose bytes do not match their digest.
            Aborted: the version was aborted during the pull.
            Unavailable: the connection to the service was lost.
        """
        options = selection(
            self.model,
            version=version,
            filter=filter,
            names=names,
            rules=rules,
            boxes=boxes,
            worker=self.worker,
            installed=installed,
            idle_timeout=idle_timeout,
            resume_within=resume_within,
            streams=streams,
            trainer_epoch=trainer_epoch,
        )
        held = base_of(base)
        given = dict(out or {})
        targets = targets_of(given)
        with self._connections.one() as connection, told_to(progress, f"pull of {self.model}/{version}") as tell:
            result, memories = connection.pull(options, held.native, targets, not copy, tell)
        result["traffic"]["base_refused"] = result["traffic"]["base_refused"] or held.refused
        return PulledVersion(result, memories, given)

    def follow(
        self, install: Callable[[PulledVersion], Any], *, until: Optional[Callable[[], bool]] = None, **options: Any
    ) -> None:
        """Stages and installs each new version. Ends when `until()`, called after each install, returns true; else
        never.

        A shorthand for Worker(...).follow(until); `options` are Worker's.
        """
        Worker(
            self.address, install=install, model=self.model, worker=self.worker, **self._channel_options, **options
        ).follow(until)

    def watch(self, after: Optional[int] = None, trainer_epoch: Optional[int] = None) -> Iterator[VersionInfo]:
        """Yields the state of each version larger than `after` whenever it changes, beginning with the current states.
        It does not end. With `trainer_epoch`: larger versions of that run, and all versions of later runs."""
        after = None if after is None else version_number(after)
        trainer_epoch = epoch_number(trainer_epoch)
        seen: Dict[Tuple[int, int], VersionInfo] = {}
        while True:
            # Each watch begins with the current states, so no change is lost between two.
            for info in self._look(after, trainer_epoch, seen):
                seen[info.trainer_epoch, info.version] = info
                yield info

    def _look(
        self, after: Optional[int], trainer_epoch: Optional[int], seen: Dict[Tuple[int, int], VersionInfo]
    ) -> List[VersionInfo]:
        news: List[VersionInfo] = []

        def take(summary: Dict[str, Any]) -> bool:
            info = VersionInfo.of(summary)
            if seen.get((info.trainer_epoch, info.version)) == info:
                return True
            news.append(info)
            return False

        with self._connections.one() as connection:
            connection.watch(
                model=self.model,
                after=after,
                trainer_epoch=trainer_epoch,
                on_event=take,
                worker=self.worker,
                life=0,
            )
        return news

    def close(self) -> None:
        """Closes the connections that are not in use, and frees the memory that they keep for the next pull."""
        self._connections.close()

    def __repr__(self) -> str:
        return f"refit.Subscriber({self.address!r}, model={self.model!r})"

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


__all__ = ["Subscriber"]
