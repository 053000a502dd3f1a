"""Describes the machine on which figures were measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from refit import REPOSITORY


def _first_field(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "unknown")


def _output(*argv: str) -> str:
    try:
        return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _memory() -> str:
    words = _first_field("/proc/meminfo", "MemTotal").split()
    return f"{int(words[0]) / 2**20:.1f} GiB" if words and words[0].isdigit() else "unknown"


def _commit() -> str:
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    return f"{commit} and changes" if _output("git", "status", "--porcelain") not in ("", "unknown") else commit


def describe() -> dict[str, str]:
    return {
        "cpu": _first_field("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "kernel": platform.release(),
        "gRPC": _output("pkg-config", "--modversion", "grpc++"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
    }
