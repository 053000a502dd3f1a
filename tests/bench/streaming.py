"""Pushes and pulls a version that is larger than the service's memory; the service does not keep it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from processes import Program
from refit import Service, Setup

# The service forgets each version once its workers have it.
OPTIONS = ("--retain", "0", "--memory", "1600MiB")


@dataclass(frozen=True)
class Streamed:
    bytes: int
    seconds: float


def stream(setup: Setup, service: Service, version: int, what: list[str], verify: list[str]) -> Streamed:
    """Seconds from the start of both programs to the end of both."""
    common = ["-s", service.address, "--version", str(version), "--json"]
    begin = time.perf_counter()
    pull = Program("refit pull", [setup.binaries / "refit", "pull", *common, "--wait", "60", *verify])
    push = Program("refit push", [setup.binaries / "refit", "push", *common, *what])
    with pull, push:
        push.output()
        report = json.loads(pull.output())
    return Streamed(report["bytes"], time.perf_counter() - begin)


def verified(what: list[str]) -> list[str]:
    """The pull options that match the push options."""
    return ["--verify-synthetic" if word == "--synthetic" else word for word in what]
