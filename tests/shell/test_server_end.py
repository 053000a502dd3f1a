"""A signal ends refit-server with exit code 0, also while it starts."""
from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import pytest
from conftest import REFIT, SERVER, environment, eventually, finish, run, start


def blocks(pid: int, number: signal.Signals) -> bool:
    """Whether a thread of the program takes this signal, so that it does not end the process by itself."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_while_it_waits_for_a_file(tmp_path: Path, sent: signal.Signals) -> None:
    """A pipe without a writer stands for all that may make a start last: large spools, slow disks."""
    os.mkfifo(tmp_path / "family.toml")
    server = start(SERVER, "--listen", "127.0.0.1:0", "--adapter-file", str(tmp_path / "family.toml"))
    eventually(lambda: blocks(server.pid, sent))
    server.send_signal(sent)
    done = finish(server)
    assert done.code == 0 and "ended before it served" in done.err and sent.name in done.err, done


def serving(tmp_path: Path, preexec_fn: Optional[Callable[[], Any]] = None, **variables: str) -> Tuple[Any, int]:
    port = tmp_path / "port"
    server = start(SERVER, "--listen", "127.0.0.1:0", "--port-file", str(port), preexec_fn=preexec_fn,
                   env=environment(**variables))
    eventually(lambda: port.exists() and port.read_text().endswith("\n"))
    return server, int(port.read_text())


def test_a_second_signal_does_not_cut_the_grace(tmp_path: Path) -> None:
    """As where a terminal and a parent both pass a Ctrl-C on."""
    server, port = serving(tmp_path, REFIT_SERVER_GRACE="2")
    address = f"127.0.0.1:{port}"
    push = start(REFIT, "push", "--synthetic", "gemma4_tiny", "--version", "1", "--rank", "0", "--world", "2", "-s", address)
    eventually(lambda: "open" in run(REFIT, "versions", "-s", address).out)
    begin = time.monotonic()
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    server.send_signal(signal.SIGTERM)
    done = finish(server)
    assert done.code == 0 and done.err.count("shutting down") == 1 and "stopped" in done.err, done
    assert time.monotonic() - begin >= 2
    assert finish(push).code == 4


def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """As SIGINT is for what a script starts in the background."""
    server, port = serving(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    server.send_signal(signal.SIGINT)
    assert not blocks(server.pid, signal.SIGINT)
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    server.send_signal(signal.SIGTERM)
    done = finish(server)
    assert done.code == 0 and "signal=SIGTERM" in done.err and "stopped" in done.err, done
