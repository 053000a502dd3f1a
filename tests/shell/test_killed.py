"""What SIGKILL leaves behind, wherever it comes: nothing in /dev/shm, $TMPDIR and the output folder, nobody in the service."""
from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest
from conftest import REFIT, SERVER, Service, eventually, finish, start

MEGABYTES = 256


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough to be killed amid; a sparse file."""
    path = tmp_path_factory.mktemp("native") / "native.safetensors"
    size = MEGABYTES << 20
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    return path


@pytest.fixture(autouse=True)
def temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these processes alone: others of the machine come and go."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


def leftovers(out: Path) -> set[str]:
    shared = [path for path in Path("/dev/shm").iterdir() if "refit" in path.name]
    return {str(path) for path in [*shared, *(out.parent / "tmp").iterdir(), *out.iterdir()]}


def state(service: Service) -> dict[str, object]:
    return json.loads(service.refit("status", "--json").out)


def settled(service: Service) -> bool:
    now = state(service)
    server = now["server"]
    return server["open_pushes"] == 0 and server["active_pulls"] == 0 and not [  # type: ignore[index]
        worker for worker in now["workers"] if worker["connected"]]  # type: ignore[union-attr, index]


DELAYS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


@pytest.mark.parametrize("delay", DELAYS_S)
def test_a_push(delay: float, service: Service, native: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = leftovers(out)
    process = service.start("push", "--adapter", "identity", str(native), "--version", "1", "-q")
    time.sleep(delay)
    process.kill()
    process.wait()
    eventually(lambda: settled(service))
    assert not leftovers(out) - before
    versions = json.loads(service.refit("versions", "--json").out)["versions"]
    assert all(version["state"] in ("aborted", "committed") for version in versions), versions
    assert service.refit("push", "--synthetic", "gemma4_tiny", "--version", "2").code == 0


@pytest.mark.parametrize("command", ["pull", "follow"])
@pytest.mark.parametrize("delay", DELAYS_S)
def test_a_worker(command: str, delay: float, service: Service, native: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert service.refit("push", "--adapter", "identity", str(native), "--version", "1").code == 0
    before = leftovers(out)
    process = service.start(command, "--out", str(out / "hf.safetensors"))
    time.sleep(delay)
    process.kill()
    process.wait()
    eventually(lambda: settled(service))
    left = leftovers(out) - before - {str(out / "hf.safetensors")}
    assert not left
    done = service.refit("pull", "--adapter", "identity", "--verify", str(native), "--out", str(out / "hf.safetensors"))
    assert done.code == 0, done
    assert os.listdir(out) == ["hf.safetensors"]


def test_a_service(native: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    served = Service(tmp_path)
    before = leftovers(out)
    assert served.refit("push", "--adapter", "identity", str(native), "--version", "1").code == 0
    following = served.start("follow", "--out", str(out / "hf.safetensors"))
    eventually((out / "hf.safetensors").exists)
    served.process.kill()
    served.process.wait()
    assert leftovers(out) - {str(out / "hf.safetensors")} <= before
    assert following.poll() is None, "a follower waits for the service to come back"
    following.kill()
    finish(following)
    assert leftovers(out) - {str(out / "hf.safetensors")} <= before


def test_a_service_with_a_spool_and_a_unix_socket(native: Path, tmp_path: Path) -> None:
    """Started again after SIGKILL it takes its socket back, and its spool has no half files."""
    socket, spool = tmp_path / "socket", tmp_path / "spool"
    command = (SERVER, "--listen", f"unix:{socket}", "--spool", str(spool), "--memory", "1GiB")
    for round_ in range(2):
        server = start(*command, stderr=None)
        eventually(lambda: not _fails("status", socket))
        if round_ == 0:
            assert not _fails("push", socket, "--adapter", "identity", str(native), "--version", "1")
            server.kill()  # amid the writing of the spool
        else:
            assert not _fails("push", socket, "--synthetic", "gemma4_tiny", "--version", "2")
            eventually(lambda: not [name for name in _files(spool) if "tmp" in name or "partial" in name])
            server.terminate()
        server.wait(20)


def _fails(command: str, socket: Path, *arguments: str) -> bool:
    return finish(start(REFIT, command, *arguments, "-s", f"unix:{socket}", "--connect-timeout", "1")).code != 0


def _files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]
