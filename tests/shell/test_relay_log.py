"""What a relay's log and status say of the service above it."""
from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import REFIT, SERVER, environment, eventually, finish, run, start

PATIENCE_S = 60.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "relay.log"


def serve(folder: Path, name: str, *flags: str, listen: str = "127.0.0.1:0") -> tuple[Any, str]:
    port = folder / f"{name}.port"
    port.unlink(missing_ok=True)
    with open(folder / f"{name}.log", "ab") as log:
        process = start(SERVER, "--listen", listen, "--port-file", str(port), *flags, stderr=log, env=environment())
    eventually(lambda: port.exists() and port.read_text().endswith("\n"))
    return process, f"127.0.0.1:{int(port.read_text())}"


def end(*processes: Any) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 0


def test_a_service_that_was_never_there_is_not_lost(tmp_path: Path, log: Path) -> None:
    relay, _ = serve(tmp_path, "relay", "--upstream", "127.0.0.1:1")
    eventually(lambda: "was not reached yet" in log.read_text(), PATIENCE_S)
    end(relay)
    assert "is lost" not in log.read_text() and "Connection refused" in log.read_text()


def test_a_service_that_is_gone_is_told_once_with_the_reason(tmp_path: Path, log: Path) -> None:
    root, above = serve(tmp_path, "root")
    relay, below = serve(tmp_path, "relay", "--upstream", above)
    eventually(lambda: "attending" in log.read_text(), PATIENCE_S)
    root.kill()
    finish(root)
    eventually(lambda: re.search("is lost.*Connection refused", log.read_text()), PATIENCE_S)
    eventually(lambda: "Connection refused" in run(REFIT, "status", "-s", below).out, PATIENCE_S)
    root, _ = serve(tmp_path, "root", listen=above)  # meanwhile the relay has tried several times
    eventually(lambda: log.read_text().count("attending") == 2, PATIENCE_S)
    end(relay, root)
    ends = [line for line in log.read_text().splitlines() if "watch of the service above ended" in line]
    assert len(ends) == len(set(re.sub("^[^ ]*", "", line) for line in ends)), ends
