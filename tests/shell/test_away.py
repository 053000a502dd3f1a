"""What those that stay with a service say while it is away: a relay, in its log and status, and `refit follow`."""
from __future__ import annotations

import json
import re
import signal
import time
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


def test_who_follows_a_service_that_is_gone_tells_each_reason_once(tmp_path: Path) -> None:
    root, above = serve(tmp_path, "root")
    assert run(REFIT, "push", "-q", "--synthetic", "gemma4_tiny", "--version", "1", "-s", above).code == 0
    follower = start(REFIT, "follow", "--count", "2", "-s", above)
    eventually(lambda: '"installed_version": 1' in json.dumps(json.loads(run(REFIT, "status", "--json", "-s", above).out)))
    root.kill()
    finish(root)
    time.sleep(5)  # it tries several times
    root, _ = serve(tmp_path, "root", listen=above)
    assert run(REFIT, "push", "-q", "--synthetic", "gemma4_tiny", "--version", "2", "-s", above).code == 0
    done = finish(follower, PATIENCE_S)
    end(root)
    told = [line for line in done.err.splitlines() if "trying on" in line]
    assert done.code == 0 and any("Connection refused" in line for line in told), done
    assert len(told) == len(set(told)) <= 4, told
