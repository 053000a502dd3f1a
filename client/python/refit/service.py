"""The service within the trainer's process."""

from __future__ import annotations

import warnings
from typing import Any, List, Mapping, Optional, Sequence, Union

from refit import _refit
from refit.dtypes import cast_name
from refit.errors import FailedPrecondition
from refit.families import option_texts
from refit.unpicklable import Unpicklable
from refit.version import Tensors, Version
from refit.version_number import epoch_number, version_number


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class Service(Unpicklable):
    """A service that runs until close(); see serve()."""

    _unpicklable_since = "it runs in this process; pass on its address, and connect to that"

    def __init__(self, native: "_refit.Service", streams: bool = False):
        self._native: Optional["_refit.Service"] = native
        self._streams = streams
        self.addresses: List[str] = native.addresses()
        self.address: str = self.addresses[0]
        self.metrics_address: str = native.metrics_address()
        self._warn(stacklevel=4)

    def _running(self) -> "_refit.Service":
        if self._native is None:
            raise FailedPrecondition(f"the service at {self.address} is closed; start another one with refit.serve()")
        return self._native

    def _warn(self, stacklevel: int) -> None:
        """Tells what the service has met meanwhile of its process's limits."""
        for warning in self._running().take_warnings():
            warnings.warn(warning, RuntimeWarning, stacklevel=stacklevel)

    def version(
        self,
        number: int,
        *,
        model: str = "default",
        adapter: str = "gemma4_moe",
        adapter_options: Optional[Mapping[str, Any]] = None,
        dtype: Any = None,
        exclude_key_regex: str = "",
        keep_dtype_regex: str = "",
        keep_family_dtypes: bool = True,
        declare: Optional[Tensors] = None,
        publisher: str = "",
        hold_installs: bool = False,
        trainer_epoch: int = 0,
        allow_empty: bool = False,
    ) -> Version:
        """As Publisher.version(), without a network hop: tensors are converted from where they are into the version's
        memory. All of the version comes from this process."""
        self._warn(stacklevel=3)
        if self._streams:
            raise FailedPrecondition(
                "with retain=0 a push waits for workers, which Service.version() cannot: push over the connection, "
                "with refit.Publisher(service.address).version(...), or keep a version (retain=1)"
            )
        number = version_number(number, least=1)
        options = _refit.PublishOptions(
            model=model,
            version=number,
            adapter=adapter,
            dtype=cast_name(dtype),
            exclude_key_regex=exclude_key_regex,
            keep_dtype_regex=keep_dtype_regex,
            publisher=publisher,
            hold_installs=hold_installs,
            trainer_epoch=epoch_number(trainer_epoch),
            allow_empty=allow_empty,
            adapter_options=option_texts(adapter_options),
            keep_family_dtypes=keep_family_dtypes,
        )

        def open_push(parts: List["_refit.Part"]) -> Any:
            return self._running().open(options, parts)

        return Version(number, open_push, exclude_key_regex, declare, adapter)

    def close(self, grace: float = 5.0) -> None:
        """Ends it: refuses new calls, gives those under way `grace` seconds. Idempotent."""
        if self._native is not None:
            self._native.shutdown(grace)
            self._native = None

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._native is None else "running"
        return f"refit.Service({self.address!r}, {state})"


def serve(
    listen: Union[str, Sequence[str]] = "127.0.0.1:0",
    *,
    zone: Optional[str] = None,
    upstream: Optional[str] = None,
    name: Optional[str] = None,
    upstream_tls_ca: Optional[str] = None,
    upstream_tls_cert: Optional[str] = None,
    upstream_tls_key: Optional[str] = None,
    upstream_tls_server_name: Optional[str] = None,
    upstream_token_file: Optional[str] = None,
    upstream_transport: Optional[str] = None,
    upstream_streams: Union[int, str, None] = None,
    memory: Optional[Union[int, str]] = None,
    retain: Optional[int] = None,
    stream_to: Optional[int] = None,
    spool: Optional[str] = None,
    trust_spool: Optional[bool] = None,
    prefault: Optional[bool] = None,
    shared_memory: Optional[bool] = None,
    pack_memory: Optional[Union[int, str]] = None,
    deltas: Optional[bool] = None,
    delta_memory: Optional[Union[int, str]] = None,
    delta_history: Optional[Union[int, str]] = None,
    adapter_files: Union[str, Sequence[str], None] = None,
    convert_threads: Optional[int] = None,
    metrics: Optional[str] = None,
    health: Optional[str] = None,
    log_level: Optional[str] = None,
    log_format: Optional[str] = None,
    socket_mode: Optional[Union[int, str]] = None,
    allow_plaintext: Optional[bool] = None,
    certificate: Optional[str] = None,
    key: Optional[str] = None,
    client_ca: Optional[str] = None,
    tokens: Optional[str] = None,
    roles: Optional[str] = None,
    peer_timeout: Optional[float] = None,
    push_idle_timeout: Optional[float] = None,
    rank_timeout: Optional[float] = None,
    worker_timeout: Optional[float] = None,
    chunk_bytes: Optional[Union[int, str]] = None,
    max_message_bytes: Optional[Union[int, str]] = None,
    push_window: Optional[Union[int, str]] = None,
    max_tensors: Optional[int] = None,
    max_models: Optional[int] = None,
    max_open_versions: Optional[int] = None,
    max_ranks: Optional[int] = None,
    max_dimensions: Optional[int] = None,
    max_regex_bytes: Optional[int] = None,
    max_rules: Optional[int] = None,
    max_streams_per_peer: Optional[int] = None,
    max_workers: Optional[int] = None,
    max_name_bytes: Optional[int] = None,
    max_pulls: Optional[int] = None,
    max_pushes: Optional[int] = None,
) -> Service:
    """Starts a service in this process. It takes every setting of refit-server, by the flag's name with underscores (and
    `certificate`, `key`, `client_ca` for --tls-cert, --tls-key, --tls-client-ca), in the same units and with the same
    checks and defaults; `refit-server --help` says more of each. What belongs to a program alone (--port-file,
    --self-check; --grace is Service.close(grace)) is left out. Sizes are bytes, or such as "16GiB" (units are powers of
    1024); timeouts are seconds.

    The limit on open descriptors is raised (up to 65,536, as far as may be), and half of them, at most 512, are left to
    connections and to the rest of the process. A RuntimeWarning tells what of the process's limits is too little.

    Args:
        listen: "host:port" (port 0, as here by default: any free one; see Service.address) or "unix:/path"; or several
            of these, see Service.addresses.
        zone: where this service is; workers and relays of the same zone prefer it, and `refit status` shows it.
        upstream: address of another service: this one is then a relay, and serves the versions of that one; nobody
            pushes to it. Or several addresses with commas between, of services with the same versions: those of this
            zone come first, and the next is taken when one is down or too busy.
        name: of this service in the fleets of those above, for people.
        upstream_tls_ca, upstream_tls_cert, upstream_tls_key, upstream_tls_server_name, upstream_token_file: how a relay
            connects; its certificate or token needs the role "relay" there.
        upstream_transport: "auto", "tcp" or "shared-memory". Default: through memory if that service is on this host.
        upstream_streams: over how many connections a relay pulls each version, or "auto": as many as pay. Default: 1.
        memory: for the tensors of all versions. By default 8 GiB, or half of what this process may use if that is less:
            the machine's memory, its container's limit, or `ulimit -v`.
        retain: committed versions to keep for each model; 0: stream each tensor through to workers. A streamed version
            is pushed with refit.Publisher(service.address), for Service.version() could not wait for workers.
        stream_to: with retain=0, how many workers have a tensor before it is let go of.
        spool: a folder in which committed versions outlive the process.
        trust_spool: take that folder although others own it or may write to it, as on shares where everything is 0777.
        prefault: get memory for the next version from the system while nothing is pushed.
        shared_memory: whether workers on this host may map the tensors. Default: they may.
        pack_memory: for parts of tensors that must be packed, besides `memory`.
        deltas: whether a worker that holds an earlier version may get only what has changed since. Default: it may.
        delta_memory: for what has changed between versions, encoded once for all workers, besides `memory`.
        delta_history: more of it, of versions that are no longer kept, for workers that are several versions behind.
        adapter_files: files with model families of your own, which trainers may then name as their adapter.
        convert_threads: how many threads convert what is pushed, and help the one that publishes in process with large
            tensors.
        metrics: "host:port" for Prometheus. Default: nowhere.
        health: "host:port" where grpc.health.v1 is answered in plain text, for probes that know no TLS.
        log_level: "debug", "info", "warning" or "error", to stderr. Default: nothing is logged.
        log_format: "text" or "json".
        socket_mode: permissions of Unix sockets, 0o660 or "660". Default: what the umask leaves.
        allow_plaintext: listen beyond loopback without TLS.
        certificate, key, client_ca: TLS, PEM files; client_ca: workers need a certificate.
        tokens, roles: files that say who may do what; see SECURITY.md.
        peer_timeout: a trainer or worker that does not answer for so long is dropped.
        push_idle_timeout: a version whose trainer answers, but sends nothing for so long, is aborted.
        rank_timeout: a sharded version some of whose ranks do not come for so long is aborted.
        worker_timeout: with retain=0, a version whose trainer waits so long for workers is aborted.
        chunk_bytes, max_message_bytes, push_window: of messages, and of what is under way.
        max_tensors, max_models, max_open_versions, max_ranks, max_dimensions, max_regex_bytes, max_rules,
            max_streams_per_peer, max_workers, max_name_bytes, max_pulls, max_pushes: beyond them, ResourceExhausted.
    Raises:
        InvalidArgument: for values that are out of range, or do not go together; it names the argument.
        Unavailable: if it cannot listen there.
    """
    if isinstance(socket_mode, int):
        socket_mode = f"{socket_mode:o}"
    given = {name: value for name, value in locals().items() if value is not None}
    return Service(_refit.Service({name: _text(value) for name, value in given.items()}), streams=retain == 0)
