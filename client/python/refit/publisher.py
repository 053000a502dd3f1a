"""The trainer's side: pushes versions to a service."""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Optional, Tuple, Union

from refit import _refit
from refit.channel import Connections, make_channel
from refit.dtensor import process_rank
from refit.dtypes import cast_name
from refit.errors import explained
from refit.stream_count import stream_count
from refit.families import option_texts
from refit.unpicklable import Unpicklable
from refit.version import Tensors, Version, VersionInfo
from refit.version_number import epoch_number, version_number


class Publisher(Unpicklable):
    """A trainer's connection to a service. Thread-safe; the versions that it opens are not.

    ::

        publisher = refit.Publisher("host:port")
        with publisher.version(42, dtype="bf16") as v:
            v.push(model.state_dict())
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "default",
        adapter: str = "gemma4_moe",
        adapter_options: Optional[Mapping[str, Any]] = None,
        publisher: str = "",
        timeout: float = 60.0,
        transport: str = "auto",
        connect_timeout: float = 10.0,
        streams: Union[int, str] = 1,
        ca: Optional[str] = None,
        certificate: Optional[str] = None,
        key: Optional[str] = None,
        server_name: Optional[str] = None,
        token_file: Optional[str] = None,
    ):
        """Connects.

        Args:
            address: "host:port" or "unix:/path".
            model: whose versions these are.
            adapter: what converts native tensors: a model family of known_adapters(), such as "qwen3_moe"; "identity" for
                Hugging Face's own; "auto" finds out by the tensors' names.
            adapter_options: choices of the trainer's configuration, such as {"activation": "relu2"}; "experts" and
                "expert_width" are checked against shapes.
            publisher: shown in the service's status.
            timeout: patience for each answer of the service, seconds.
            transport: "auto" (shared memory with a service on this host, the wire otherwise), "wire", "shared_memory".
            connect_timeout: seconds.
            streams: over how many connections each version is pushed, where one is slower than the link; "auto": as many
                as pay, which one version after the other finds out. Not for a sharded trainer, whose ranks are
                connections already.
            ca, certificate, key, server_name: TLS, as PEM files; certificate and key for mutual TLS.
            token_file: a file with the bearer token.
        Raises:
            Unavailable: naming address and reason, if there is no service.
        """
        self.address = address
        self.model = model
        self._adapter = adapter
        self._adapter_options = option_texts(adapter_options)
        self._publisher = publisher
        self._timeout = timeout
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
        count = stream_count(streams)
        self._connections = Connections(lambda flag: _refit.Publisher(channel, flag, count))
        self._connections.give_back(self._connections.open())

    def version(
        self,
        number: int,
        *,
        dtype: Any = None,
        exclude_key_regex: str = "",
        keep_dtype_regex: str = "",
        keep_family_dtypes: bool = True,
        declare: Optional[Tensors] = None,
        rank: Optional[int] = None,
        world: Optional[int] = None,
        hold_installs: bool = False,
        trainer_epoch: int = 0,
        allow_empty: bool = False,
        on_waiting: Optional[Callable[[List[int]], None]] = None,
    ) -> Version:
        """A version to push; use it in a ``with`` block, which commits it.

        Args:
            number: a whole number of any kind, larger than every version committed before under this model with the
                same trainer_epoch.
            dtype: what floating-point outputs are cast to, such as "bf16"; None: no cast. What becomes smaller is cast
                before it is sent.
            exclude_key_regex: Python ``re.match``; tensors that match are not published. The family says whether native
                or Hugging Face names are matched; see known_adapters().
            keep_dtype_regex: Python ``re.match`` on native names; what becomes of those that match is not cast to `dtype`,
                such as r".*e_score_correction_bias". InvalidArgument if it matches none.
            keep_family_dtypes: whether tensors that the family never casts keep their dtype, such as a router's bias.
            declare: all native tensors by name, as tensors or (dtype, shape), to push them in parts later; None: the first
                push brings all.
            rank, world: of trainer ranks that push the version together, each its parts. Default: torch.distributed's, if
                it is in use.
            hold_installs: workers stage it, and install it once release() is called.
            trainer_epoch: which run of the trainer this is; a larger one fences off those before it, may start its
                numbers anew, and workers follow it. See last_run().
            allow_empty: a version without tensors, or with only empty ones, is meant; it is refused otherwise.
            on_waiting: hears every few seconds for which ranks (or, with none, for workers) the push waits.
        """
        number = version_number(number, least=1)
        own_rank, own_world = process_rank()
        is_taken = (rank is None or world is None) and own_world > 1
        rank = own_rank if rank is None else rank
        world = own_world if world is None else world
        taken = (
            f"rank {rank} of {world} is torch.distributed's; say otherwise with rank= and world=" if is_taken else ""
        )
        options = _refit.PublishOptions(
            model=self.model,
            version=number,
            adapter=self._adapter,
            dtype=cast_name(dtype),
            exclude_key_regex=exclude_key_regex,
            keep_dtype_regex=keep_dtype_regex,
            publisher=self._publisher,
            rank=rank,
            world=world,
            hold_installs=hold_installs,
            trainer_epoch=epoch_number(trainer_epoch),
            allow_empty=allow_empty,
            timeout=self._timeout,
            adapter_options=self._adapter_options,
            keep_family_dtypes=keep_family_dtypes,
        )

        # Its own while it is open: cancelling the version's calls cancels the connection.
        connection = self._connections.open()

        def open_push(parts: List["_refit.Part"]) -> Any:
            with explained(taken):
                return connection.open(options, parts, on_waiting)

        return Version(
            number,
            open_push,
            exclude_key_regex,
            declare,
            self._adapter,
            cancel=connection.cancel,
            on_end=lambda: self._connections.give_back(connection),
        )

    def abort(self, version: int, reason: str) -> VersionInfo:
        """Aborts an open version from outside, whoever pushes it."""
        with self._connections.one() as connection:
            return VersionInfo.of(connection.abort(self.model, version_number(version), reason))

    def release(self, version: int) -> VersionInfo:
        """Lets workers install a version that was pushed with hold_installs."""
        with self._connections.one() as connection:
            return VersionInfo.of(connection.release_installs(self.model, version_number(version)))

    def wait_for_workers(
        self,
        version: int,
        *,
        workers: int = 1,
        all: bool = False,
        phase: str = "installed",
        timeout: float = 60.0,
        trainer_epoch: Optional[int] = None,
    ) -> int:
        """Waits until workers that are connected have a version, or a later one of the same run.

        Args:
            workers: at least so many.
            all: and every one that is connected.
            phase: "staged" or "installed".
            timeout: seconds.
            trainer_epoch: the run that it is of; by default the last that the service has heard of.
        Returns:
            How many have it.
        Raises:
            DeadlineExceeded: naming those that are behind (and why: failed, torn, with a version of another run), and
                those that are gone.
            Unavailable: the service shuts down.
            Aborted: the version was aborted.
            FailedPrecondition: a run with a larger trainer_epoch than the one given has taken over.
        """
        with self._connections.one() as connection:
            return connection.await_workers(
                model=self.model,
                version=version_number(version),
                trainer_epoch=epoch_number(trainer_epoch),
                installed=phase != "staged",
                workers=workers,
                all=all,
                timeout=timeout,
            )

    def last_run(self) -> Tuple[int, int]:
        """(the largest trainer_epoch that the service has seen of the model, the largest version number that it knows); 0 and
        0 if there is none. A trainer that is started anew takes a larger epoch, and goes on with larger numbers."""
        with self._connections.one() as connection:
            epoch, number = connection.last_run(self.model)
            return int(epoch), int(number)

    def connected_workers(self) -> int:
        """How many workers of the model are connected now."""
        with self._connections.one() as connection:
            return int(connection.connected_workers(self.model))

    def close(self) -> None:
        """Lets go of the connections that are not in use."""
        self._connections.close()

    def __repr__(self) -> str:
        return f"refit.Publisher({self.address!r}, model={self.model!r})"

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
