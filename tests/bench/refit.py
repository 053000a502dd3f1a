"""Starts this project's own programs for the sections."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from processes import NotMeasured, Program, run

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "gemma4_26b_a4b"
TINY_MODEL = "gemma4_tiny"
# What is no layer of the language model.
NO_LAYER = r"lm_head|model\.(vision_tower|embed_vision|language_model\.embed_tokens)"
TRANSPORTS = ("tcp", "shm")


@dataclass(frozen=True)
class Setup:
    """Options of this run of the benchmarks."""

    binaries: Path
    rounds: int
    smoke: bool
    # Overrides the sections' own number of layers.
    layers: int | None

    def synthetic(self, layers: int, excluded: str = "") -> list[str]:
        """Options of a trainer: this many layers of the model and nothing else, or the tiny model in a smoke run."""
        exclude = ["--exclude-key-regex", f"{NO_LAYER}|{excluded}" if excluded else NO_LAYER]
        if self.smoke:
            return ["--synthetic", TINY_MODEL, "--layers", str(layers), *exclude]
        return ["--synthetic", MODEL, "--layers", str(self.layers or layers), *exclude]


class Service(Program):
    """A refit-server of its own on a free port of loopback."""

    def __init__(self, setup: Setup, *options: str) -> None:
        self._dir = tempfile.TemporaryDirectory()
        port_file = Path(self._dir.name) / "port"
        super().__init__(
            "refit-server",
            [setup.binaries / "refit-server", "--listen", "127.0.0.1:0", "--port-file", port_file]
            + ["--log-level", "error", *options],
        )
        try:
            self.address = f"127.0.0.1:{self._wait_for_port(port_file)}"
        except BaseException:
            self.stop()
            raise

    def _wait_for_port(self, port_file: Path) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if port_file.exists() and (text := port_file.read_text().strip()):
                return int(text)
            if not self.is_running():
                raise self.failure("did not start")
            time.sleep(0.01)
        raise self.failure("did not listen within 20 s")

    def stop(self) -> None:
        super().stop()
        self._dir.cleanup()


class Trainer(Program):
    """bench-trainer: one rank with its shards in memory."""

    def __init__(self, setup: Setup, service: Service, *options: str, transport: str = "tcp") -> None:
        super().__init__(
            "bench-trainer",
            [setup.binaries / "bench-trainer", "--server", service.address, "--transport", transport, *options],
        )
        self._wanted = transport

    def wait_for_values(self) -> None:
        """It first makes its values."""
        _check_transport(self._wanted, self.wait_ready()[1])

    def push(self, version: int) -> float:
        """Seconds from opening to commit."""
        return float(self.ask(version)[1])


class Worker(Program):
    """bench-worker: pulls into memory that it reuses."""

    def __init__(self, setup: Setup, service: Service, *options: str, transport: str = "tcp") -> None:
        super().__init__(
            "bench-worker",
            [setup.binaries / "bench-worker", "--server", service.address, "--transport", transport, *options],
        )
        try:
            _check_transport(transport, self.wait_ready()[0])
        except BaseException:
            self.stop()
            raise

    def pull(self, version: int) -> float:
        """Pulls and verifies a version. Returns the seconds."""
        return float(self.ask(version)[2])

    def pull_wire(self, version: int) -> tuple[float, int]:
        """Pulls and verifies a version. Returns the seconds, and the payload's bytes."""
        words = self.ask(version)
        return float(words[2]), int(words[3])

    def pull_bytes(self, version: int) -> int:
        return int(self.ask(version)[1])


class InPlaceWorker(Program):
    """bench-in-place-worker: installs into the memory that is in use."""

    def __init__(self, setup: Setup, service: Service) -> None:
        argv = [setup.binaries / "bench-in-place-worker", "--server", service.address, "--transport", "tcp"]
        super().__init__("bench-in-place-worker", argv)
        self.wait_ready()

    def refit(self, version: int) -> float:
        """Seconds from the end of staging, while the version in use is untouched, to the end of the install."""
        words = self.ask(version)
        return float(words[2])


def _check_transport(wanted: str, used: str) -> None:
    if wanted != used:
        raise NotMeasured(f"asked for {wanted}, the program uses {used}")


def start_trainer(
    stack: ExitStack, setup: Setup, service: Service, *options: str, transport: str = "tcp"
) -> Trainer:
    trainer = stack.enter_context(Trainer(setup, service, *options, transport=transport))
    trainer.wait_for_values()
    return trainer


def newest_version(setup: Setup, service: Service) -> dict:
    """The versions, as `refit versions --json` prints them."""
    text = run("refit versions", [setup.binaries / "refit", "versions", "-s", service.address, "--json"])
    return json.loads(text)["versions"][-1]


def hf_bytes(setup: Setup, service: Service) -> int:
    """The newest version."""
    return int(newest_version(setup, service)["bytes"])


def converting_seconds(setup: Setup, service: Service) -> float:
    """CPU time spent so far on converting and digesting the newest version."""
    return int(newest_version(setup, service)["convert_ns"]) / 1e9
