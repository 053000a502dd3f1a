"""How an update went, and what it cost the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Dict

from refit.pulled_version import PulledVersion
from refit.traffic import Traffic


@dataclass(frozen=True)
class Installed:
    """An update, as it went on this rank.

    Attributes:
        version, bytes, adapter: what was installed.
        traffic: in which form the bytes came.
        pull_seconds: how long the version took to come, beside the engine or not.
        wait_seconds: how long the engine waited for it.
        check_seconds: the model's loaders were asked whether they take it.
        agree_seconds: this rank waited for the others.
        load_seconds: the model was filled.
        total_seconds: the engine stood still.
    """

    version: int
    bytes: int
    adapter: str
    traffic: Traffic
    pull_seconds: float
    wait_seconds: float
    check_seconds: float
    agree_seconds: float
    load_seconds: float
    total_seconds: float

    def __str__(self) -> str:
        base = self.traffic.base_version
        moved = "" if base is None else f", of which {self.traffic.wire_bytes / 1e6:.1f} MB came, base {base}"
        return (
            f"version {self.version} installed ({self.bytes / 1e6:.1f} MB{moved}, adapter {self.adapter}): pulled in "
            f"{self.pull_seconds:.3f} s; the engine stood still for {self.total_seconds:.3f} s: "
            f"{self.wait_seconds:.3f} waiting for the pull, {self.check_seconds:.3f} checking, "
            f"{self.agree_seconds:.3f} for other ranks, {self.load_seconds:.3f} loading"
        )


class Clock:
    """Laps of one install, by the steady clock."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._laps: Dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._laps[name] = now - self._last
        self._last = now

    def installed(self, version: PulledVersion) -> Installed:
        laps = {f"{name}_seconds": seconds for name, seconds in self._laps.items()}
        info = version.info
        return Installed(
            version=version.number,
            bytes=info.bytes,
            adapter=info.adapter,
            traffic=version.traffic,
            pull_seconds=version.seconds,
            total_seconds=self._last - self._began,
            **laps,
        )
