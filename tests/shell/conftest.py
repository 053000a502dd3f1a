"""The programs as a shell runs them: real processes, terminals, pipes and signals."""
from __future__ import annotations

import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pytest

sys.dont_write_bytecode = True
BIN = Path(os.environ.get("REFIT_BIN", Path(__file__).parents[2] / "build/release/bin"))
REFIT = str(BIN / "refit")
SERVER = str(BIN / "refit-server")
# How much longer than an optimised build these programs may take: sanitizers slow them down.
SLOWNESS = float(os.environ.get("REFIT_SLOWNESS", "1"))
WITH_TORCH = (BIN / "refit-torch").exists()
COMMANDS = ("push", "pull", "follow", "await", "release", "watch", "status", "versions", "describe", "abort", "convert",
            "certs", "adapters")
# Every command that speaks to the service, with the least that it wants.
CALLS: dict[str, tuple[str, ...]] = {
    "push": ("push", "--synthetic", "gemma4_tiny"),
    "push-numbered": ("push", "--synthetic", "gemma4_tiny", "--version", "9"),
    "pull": ("pull",),
    "pull-wait": ("pull", "--wait", "30", "--version", "77"),
    "follow": ("follow", "--count", "9"),
    "await": ("await", "77", "--timeout", "60"),
    "release": ("release", "1"),
    "watch": ("watch",),
    "watch-fleet": ("watch", "--fleet"),
    "status": ("status",),
    "versions": ("versions",),
    "describe": ("describe", "latest"),
    "abort": ("abort", "1", "--reason", "x"),
}


@dataclass
class Done:
    code: int
    out: str
    err: str


def environment(**changes: str | None) -> dict[str, str]:
    """Ours without what speaks to the programs; None takes a variable away."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REFIT_") and k not in ("NO_COLOR", "COLUMNS")}
    kept.update({k: v for k, v in changes.items() if v is not None})
    return {k: v for k, v in kept.items() if changes.get(k, "") is not None}


def start(*command: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               "env": environment(), **options}
    return subprocess.Popen(command, **options)


def finish(process: subprocess.Popen[bytes], patience: float = 30) -> Done:
    try:
        out, err = process.communicate(timeout=patience * SLOWNESS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} still ran after {patience * SLOWNESS} s: {out!r} {err!r}") from None
    done = Done(process.returncode, (out or b"").decode(), (err or b"").decode())
    if not WITH_TORCH and "this build of refit lacks LibTorch" in done.err:
        pytest.skip("this build of refit lacks LibTorch")
    return done


def run(*command: str, patience: float = 30, **options: Any) -> Done:
    return finish(start(*command, **options), patience)


def shell(line: str, **options: Any) -> Done:
    """A line of bash, with $REFIT for the program."""
    return run("bash", "-c", line, **{"env": environment(REFIT=REFIT), **options})


def on_terminal(*command: str, columns: int = 80, rows: int = 24, patience: float = 30, **changes: str | None) -> Done:
    """stdout and stderr are one terminal; in `out` is what it got."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = start(*command, stdout=theirs, stderr=theirs, env=environment(**{"TERM": "xterm", **changes}))
    os.close(theirs)
    got = b""
    end = time.monotonic() + patience * SLOWNESS
    while time.monotonic() < end and select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # its last holder is gone
            break
        if not piece:
            break
        got += piece
    os.close(ours)
    return Done(process.wait(patience), got.decode().replace("\r\n", "\n"), "")


def eventually(holds: Callable[[], Any], patience: float = 15) -> Any:
    end = time.monotonic() + patience * SLOWNESS
    while not (result := holds()):
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.05)
    return result


class Service:
    """A refit-server on loopback; it writes its log into `log`."""

    def __init__(self, folder: Path, *flags: str, **changes: str | None) -> None:
        self.log = folder / f"log{time.monotonic_ns()}"
        port_file = folder / f"port{time.monotonic_ns()}"
        self.process = start(SERVER, "--listen", "127.0.0.1:0", "--port-file", str(port_file),
                             "--memory", "1GiB", *flags, stdout=subprocess.DEVNULL, stderr=self.log.open("wb"),
                             env=environment(**changes))
        eventually(lambda: port_file.exists() and port_file.read_text().endswith("\n"))
        self.port = int(port_file.read_text())
        self.address = f"127.0.0.1:{self.port}"

    def refit(self, *arguments: str, **options: Any) -> Done:
        return run(REFIT, *arguments, "-s", self.address, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return start(REFIT, *arguments, "-s", self.address, **options)

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    served = Service(tmp_path)
    yield served
    served.end()


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing; has version 1 of "default"."""
    served = Service(tmp_path_factory.mktemp("service"))
    pushed = served.refit("push", "--synthetic", "gemma4_tiny", "--version", "1")
    assert pushed.code == 0, pushed
    yield served
    served.end()


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where connections are taken and nothing is ever said."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken = []

    def take() -> None:
        while True:
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    for connection in taken:
        connection.close()


def lines(text: str) -> Sequence[str]:
    return text.splitlines()
