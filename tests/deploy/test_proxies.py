"""A refit through Envoy and nginx: what their time limits cut, how that shows, and what goes on by itself.

Limits are seconds here where they are minutes in the field. deploy/BEHIND_A_PROXY.md has the same cases as a table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import Done
from tools import BIN, ROOT, SLOWNESS

pytest.importorskip("envoy", reason="deploy/get_cluster_tools.sh gets it")
from proxies import NGINX, Envoy, Nginx, Proxy, await_port, free_port

PACKAGE = os.environ.get("REFIT_PYTHONPATH", str(ROOT / "build/release/python"))
NO_NGINX = "" if NGINX.exists() else f"no {NGINX}: deploy/get_nginx.sh says why"
# A trainer that pushes 5 tensors and computes for so long before each.
TRAINER = """
import sys, time, refit
address, model, number, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
value = memoryview(bytearray(1 << 22))
names = {f"t{i}": ("uint8", (1 << 22,)) for i in range(5)}
with refit.Publisher(address, model=model, adapter="identity").version(number, declare=names) as v:
    for name in names:
        time.sleep(pause)
        v.push({name: value})
"""


def why_no_package() -> str:
    probe = subprocess.run(
        [sys.executable, "-c", "import refit"],
        env={**os.environ, "PYTHONPATH": PACKAGE},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no Python package of refit: {probe.stderr.strip().splitlines()[-1]}" if probe.returncode else ""


pytestmark = pytest.mark.skipif(bool(why_no_package()), reason=why_no_package())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Over the connection alone: shared memory would pass by the proxy."""
    log, port = tmp_path_factory.mktemp("service") / "log", free_port()
    command = (BIN / "refit-server", "--listen", f"127.0.0.1:{port}", "--memory", "1GiB", "--no-shared-memory")
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    await_port(process, port, log)
    yield port
    process.kill()
    process.wait()


def start(*command: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str], patience: float = 30) -> Done:
    try:
        out, err = process.communicate(timeout=patience * SLOWNESS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} still ran after {patience * SLOWNESS} s: {err}") from None
    return Done(process.returncode, out, err)


def refit(*words: str, patience: float = 30) -> Done:
    return finish(start(BIN / "refit", *words), patience)


def push(address: str, model: str, number: int, pause: float) -> Done:
    return finish(start(sys.executable, "-c", TRAINER, address, model, str(number), str(pause * SLOWNESS)))


@dataclass
class Case:
    proxy: type[Envoy | Nginx]
    settings: Any
    pause: float  # before each of five tensors
    error: str = ""  # of the push; empty: it passes


def seconds(count: float) -> str:
    return f"{count * SLOWNESS:g}s"


NO_LIMIT = {"timeout": "0s"}
CUT = "stream was cut after"
CASES: dict[str, Case] = {
    # It counts from the end of the request, and a push is a request for as long as it lasts.
    "envoy: route timeout": Case(Envoy, {"route": {"timeout": seconds(2)}}, 0.6),
    "envoy: stream idle timeout": Case(
        Envoy, {"route": NO_LIMIT, "manager": {"stream_idle_timeout": seconds(1)}}, 1.5, CUT
    ),
    "envoy: longest stream": Case(
        Envoy,
        {"route": NO_LIMIT, "manager": {"common_http_protocol_options": {"max_stream_duration": seconds(1)}}},
        0.5,
        CUT,
    ),
    "envoy: longest connection": Case(
        Envoy,
        {
            "route": NO_LIMIT,
            "manager": {
                "drain_timeout": seconds(1),
                "common_http_protocol_options": {"max_connection_duration": seconds(1)},
            },
        },
        0.5,
    ),
    "nginx: read timeout": Case(Nginx, f"client_max_body_size 0; grpc_read_timeout {seconds(1)};", 1.5, CUT),
    "nginx: largest body": Case(Nginx, f"grpc_read_timeout {seconds(1)};", 0.1, CUT),
}


def begin(case: Case, folder: Path, upstream: int) -> Proxy:
    if case.proxy is Nginx and NO_NGINX:
        pytest.skip(NO_NGINX)
    return case.proxy(folder, upstream, case.settings)


@pytest.mark.parametrize("name", CASES)
def test_limits(name: str, service: int, tmp_path: Path) -> None:
    """The worker goes on, whatever is cut. A push that is cut fails, and says when."""
    case, model = CASES[name], name.replace(": ", "-").replace(" ", "-")
    with begin(case, tmp_path, service) as proxy:
        worker = start(BIN / "refit", "follow", "-s", proxy.address, "-m", model, "--count", "1", "--timeout", "60")
        pushed = push(proxy.address, model, 1, case.pause)
        if case.error:
            assert pushed.code == 1 and case.error in pushed.err, pushed
            # Slowly, so that the worker's pull is cut too, and goes on where it was.
            pushed = push(f"127.0.0.1:{service}", model, 2, 0.3)
        assert pushed.code == 0, pushed
        followed = finish(worker)
        assert followed.code == 0, followed
        assert proxy.cuts() > 0, "nothing was cut, so nothing was tested"


@pytest.mark.parametrize("name", ["envoy: route timeout", "envoy: stream idle timeout", "nginx: read timeout"])
@pytest.mark.parametrize("command", [("pull", "--version", "1", "--wait", "60"), ("watch", "--until", "1")])
def test_waiting_goes_on(name: str, command: tuple[str, ...], service: int, tmp_path: Path) -> None:
    """A command that waits for a version is cut while nothing comes, and sees it all the same."""
    model = "-".join((name, command[0])).replace(": ", "-").replace(" ", "-")
    with begin(CASES[name], tmp_path, service) as proxy:
        waiting = start(BIN / "refit", command[0], "-s", proxy.address, "-m", model, *command[1:])
        end = time.monotonic() + 20 * SLOWNESS
        while proxy.cuts() == 0 and waiting.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        cuts = proxy.cuts()
        assert push(f"127.0.0.1:{service}", model, 1, 0).code == 0
        waited = finish(waiting)
        assert waited.code == 0, waited
        assert cuts > 0, "nothing was cut, so nothing was tested"


@dataclass
class Misfit:
    proxy: type[Envoy | Nginx]
    settings: Any
    error: str
    is_down: bool = False


MISFITS: dict[str, Misfit] = {
    "envoy: HTTP/1 to the service": Misfit(Envoy, {"http1": True}, "reset reason: protocol error"),
    "envoy: no service": Misfit(Envoy, {}, "reset reason: remote connection failure", is_down=True),
    "nginx: HTTP/1 to the service": Misfit(Nginx, "proxy_pass http://UPSTREAM;", "Received http2 header with status: "),
    "nginx: no service": Misfit(Nginx, "", "Received http2 header with status: 502", is_down=True),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfits(name: str, service: int, tmp_path: Path) -> None:
    """What cannot work says so at once."""
    case = MISFITS[name]
    with begin(Case(case.proxy, case.settings, 0), tmp_path, free_port() if case.is_down else service) as proxy:
        asked = refit("status", "-s", proxy.address)
        assert asked.code != 0 and case.error in asked.err, asked


def test_pings_of_a_proxy(service: int, tmp_path: Path) -> None:
    """One a second is not too many, as Envoy may be told to send on its connections to the service."""
    pings = {"route": NO_LIMIT, "upstream": {"connection_keepalive": {"interval": "1.1s", "timeout": "5s"}}}
    with Envoy(tmp_path, service, pings) as proxy:
        pushed = push(proxy.address, "pings", 1, 1.5)
        assert pushed.code == 0, pushed


WORKER = """
import sys, refit
version = refit.Subscriber(sys.argv[1]).pull("latest")
print(version.traffic.mapped_bytes, sum(tensor.nbytes for _, tensor in version))
"""


def test_shared_memory_passes_by_a_proxy(tmp_path: Path) -> None:
    """On one host a mesh's sidecar sees the calls; the bytes are mapped as without it."""
    port, log = free_port(), tmp_path / "service"
    with ExitStack() as stack:
        with log.open("wb") as out:
            command = (BIN / "refit-server", "--listen", f"127.0.0.1:{port}", "--memory", "1GiB")
            served = stack.enter_context(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        stack.callback(served.kill)
        await_port(served, port, log)
        proxy = stack.enter_context(Envoy(tmp_path / "proxy", port, {}))
        assert push(proxy.address, "default", 1, 0).code == 0
        pulled = finish(start(sys.executable, "-c", WORKER, proxy.address))
        assert pulled.code == 0, pulled
        mapped, whole = map(int, pulled.out.split())
        assert mapped == whole == 5 << 22
