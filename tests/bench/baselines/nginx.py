"""nginx sends a file that is in memory, curl writes it to memory: a download as one would set it up for speed."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from baselines.region import CHUNK_BYTES, runs
from processes import NotMeasured, Program, ProgramFailed

# Debian's nginx is where only root looks.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
MEMORY = "/dev/shm"
CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{}}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {directory};
  }}
}}
"""


class Download:
    """Fetches a file, each time into the same one, whose memory is warm after the first time."""

    def __init__(self, stack: ExitStack, url: str) -> None:
        self._url = url
        self._sink = stack.enter_context(tempfile.TemporaryFile(dir=MEMORY))

    def __call__(self) -> float:
        self._sink.seek(0)
        begin = time.perf_counter()
        curl = subprocess.run(
            ["curl", "--silent", "--show-error", "--fail", self._url],
            stdout=self._sink,
            stderr=subprocess.PIPE,
            text=True,
        )
        if curl.returncode != 0:
            raise ProgramFailed(f"curl ended with exit code {curl.returncode}: {curl.stderr.strip()}")
        return time.perf_counter() - begin


def start(stack: ExitStack, total: int) -> Download:
    if not os.access(MEMORY, os.W_OK):
        raise NotMeasured(f"no {MEMORY} to write to")
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
    _write_file(directory / "version", total)
    port = _free_port()
    (directory / "nginx.conf").write_text(CONFIGURATION.format(directory=directory, port=port))
    server = stack.enter_context(
        Program("nginx", ["nginx", "-p", directory, "-c", directory / "nginx.conf"], {"PATH": PATH})
    )
    _wait_for(server, port)
    return Download(stack, f"http://127.0.0.1:{port}/version")


def _write_file(path: Path, size: int) -> None:
    block = b"\x5a" * CHUNK_BYTES
    with path.open("wb") as file:
        for _, run in runs(size, CHUNK_BYTES):
            file.write(block[:run])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(server: Program, port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.is_running():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise server.failure("does not listen")
