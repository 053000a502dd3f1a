"""The service within the trainer's process."""

from __future__ import annotations

import re
from typing import Any, List, Optional, Union

from refit import _refit
from refit.dtypes import cast_name
from refit.errors import InvalidArgument
from refit.version import Tensors, Version

_UNITS = {
    "": 1,
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}


def _size(value: Union[int, str]) -> int:
    if isinstance(value, int):
        return value
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    if parts is None or parts[2].lower() not in _UNITS:
        raise InvalidArgument(f"'{value}' is no size; expected such as '16GiB'")
    return int(float(parts[1]) * _UNITS[parts[2].lower()])


class Service:
    """A service that runs until close(); see serve()."""

    def __init__(self, native: "_refit.Service"):
        self._native = native
        self.address: str = native.address()
        self.metrics_address: str = native.metrics_address()

    def version(
        self,
        number: int,
        *,
        model: str = "default",
        adapter: str = "gemma4_moe",
        dtype: Any = None,
        exclude_key_regex: str = "",
        declare: Optional[Tensors] = None,
        publisher: str = "",
        hold_installs: bool = False,
        trainer_epoch: int = 0,
        allow_empty: bool = False,
    ) -> Version:
        """As Publisher.version(), without a network hop: tensors are converted from where they are into the version's
        memory. All of the version comes from this process."""
        if self._native is None:
            raise InvalidArgument("the service is closed")
        cast_to = cast_name(dtype)

        def open_push(parts: List["_refit.Part"]) -> Any:
            return self._native.open(
                model=model,
                version=number,
                adapter=adapter,
                dtype=cast_to,
                exclude_key_regex=exclude_key_regex,
                publisher=publisher,
                hold_installs=hold_installs,
                trainer_epoch=trainer_epoch,
                allow_empty=allow_empty,
                tensors=parts,
            )

        return Version(number, open_push, exclude_key_regex, declare)

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
        return f"refit.Service({self.address!r})"


def serve(
    listen: str = "127.0.0.1:0",
    *,
    memory: Union[int, str] = "8GiB",
    retain: int = 2,
    metrics: str = "",
    convert_threads: int = 0,
    spool: str = "",
    shared_memory: bool = True,
    allow_plaintext: bool = False,
    certificate: str = "",
    key: str = "",
    client_ca: str = "",
    tokens: str = "",
    roles: str = "",
) -> Service:
    """Starts a service in this process.

    Args:
        listen: "host:port" (port 0: any free one; see Service.address) or "unix:/path".
        memory: for the tensors of all versions, bytes or such as "16GiB".
        retain: committed versions to keep for each model, at least 1.
        metrics: "host:port" for Prometheus; empty: nowhere.
        convert_threads: How many threads convert what is pushed, and help the one that publishes in process with large
            tensors. 0: one for each two cores.
        spool: a folder in which committed versions outlive the process.
        shared_memory: workers on this host may map the tensors.
        allow_plaintext: listen beyond loopback without TLS.
        certificate, key, client_ca: TLS, PEM files; client_ca: workers need a certificate.
        tokens, roles: files that say who may do what; see SECURITY.md.
    Raises:
        InvalidArgument: for options that do not go together.
        Unavailable: if it cannot listen there.
    """
    if retain < 1:
        raise InvalidArgument(
            "retain must be at least 1: a service in the trainer's process cannot wait for its workers"
        )
    return Service(
        _refit.Service(
            listen=listen,
            memory=_size(memory),
            retain=retain,
            metrics=metrics,
            convert_threads=convert_threads,
            allow_plaintext=allow_plaintext,
            shared_memory=shared_memory,
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            tokens=tokens,
            roles=roles,
            spool=spool,
        )
    )
