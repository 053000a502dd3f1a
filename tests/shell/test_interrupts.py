"""Ctrl-C and SIGTERM end every command at once, with exit code 130 and one line, whatever it waits for."""
from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from conftest import CALLS, REFIT, SLOWNESS, WITH_TORCH, Service, eventually, finish, start

# Ours, beside what a loaded machine needs to start and end a process.
AT_ONCE_S = 3.0 * SLOWNESS


def waits(pid: int) -> bool:
    """Whether the signal would be noted already, rather than end the process as it begins.

    While a process makes a thread, all its signals are blocked for a moment.
    """
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    blocked = int(line.split()[1], 16)
    return bool(blocked & 1 << (signal.SIGTERM - 1)) and not blocked & 1 << (signal.SIGUSR1 - 1)


def end_by(process: "object", sent: signal.Signals, settle: float) -> None:
    eventually(lambda: waits(process.pid))  # type: ignore[attr-defined]
    time.sleep(settle)
    begin = time.monotonic()
    process.send_signal(sent)  # type: ignore[attr-defined]
    done = finish(process, 20)  # type: ignore[arg-type]
    seconds = time.monotonic() - begin
    errors = [line for line in done.err.splitlines() if not line.startswith(("push version", "pull:"))]
    assert done.code == 130, done
    assert len(errors) == 1 and errors[0].startswith("refit: ") and "interrupted" in errors[0], done
    assert seconds < AT_ONCE_S, f"{seconds:.1f} s: {done}"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", CALLS)
def test_while_it_connects(name: str, sent: signal.Signals, silent_address: str) -> None:
    end_by(start(REFIT, *CALLS[name], "-s", silent_address, "--connect-timeout", "30"), sent, 0.2)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", CALLS)
def test_while_the_service_hangs(name: str, sent: signal.Signals, service: Service) -> None:
    """It accepts by its kernel, or answered a moment ago, and says nothing more."""
    if name in ("watch", "watch-fleet", "follow", "await", "pull-wait"):
        process = service.start(*CALLS[name])
        eventually(lambda: waits(process.pid))
        time.sleep(0.5)
        service.process.send_signal(signal.SIGSTOP)
    else:
        service.process.send_signal(signal.SIGSTOP)
        process = service.start(*CALLS[name], "--connect-timeout", "30")
    end_by(process, sent, 0.5)


def test_a_push_that_waits_for_ranks_that_hang_with_the_service(service: Service) -> None:
    process = service.start("push", "--synthetic", "gemma4_tiny", "--version", "3", "--rank", "0", "--world", "2")
    eventually(lambda: "open" in service.refit("versions").out)
    service.process.send_signal(signal.SIGSTOP)
    end_by(process, signal.SIGINT, 0.2)


@pytest.mark.skipif(not WITH_TORCH, reason="this build of refit lacks LibTorch")
def test_a_conversion(tmp_path: Path) -> None:
    """Which waits for nobody: a pipe that nobody reads holds it up."""
    import os

    out = tmp_path / "pipe"
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    native = tmp_path / "native.safetensors"
    write_native(native)
    process = start(REFIT, "convert", "--to", "hf", "--adapter", "identity", str(native), str(out))
    try:
        end_by(process, signal.SIGINT, 0.5)
    finally:
        os.close(reader)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [
    ("push", "--rank", "0", "--world", "2", "--version", "1", "--synthetic", "gemma4_tiny", "--tp-size", "2"),
    ("pull", "--tp-rank", "0", "--tp-size", "2"),
    ("follow", "--tp-rank", "0", "--tp-size", "2"),
])
def test_while_a_file_does_not_open(command: tuple[str, ...], sent: signal.Signals, tmp_path: Path) -> None:
    """A pipe that nobody writes to; a file of a server that is away would hold it up as long."""
    import os

    os.mkfifo(tmp_path / "rules")
    end_by(start(REFIT, *command, "--tp-rules", str(tmp_path / "rules"), "-s", "127.0.0.1:1"), sent, 0.5)


def write_native(path: Path, megabytes: int = 4) -> None:
    import json
    import struct

    size = megabytes << 20
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def test_in_the_background_it_is_left_alone(service: Service) -> None:
    """fish-shell#4007: what the shell has ignored for a job stays ignored."""
    process = service.start("watch", "--timeout", "2",
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    eventually(lambda: waits(process.pid))
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 0, done
