"""Throw-away certificates for mutual TLS on localhost."""

from __future__ import annotations

from pathlib import Path

from processes import run


def make(binaries: Path, directory: Path) -> Path:
    """A folder as `refit certs` makes it."""
    run("refit certs", [binaries / "refit", "certs", directory])
    return directory


def server_options(directory: Path) -> list[str]:
    """Mutual TLS for refit-server."""
    files = {"--tls-cert": "server.pem", "--tls-key": "server.key", "--tls-client-ca": "ca.pem"}
    return _options(directory, files)


def client_options(directory: Path, role: str) -> list[str]:
    """Mutual TLS for bench-trainer, bench-worker and refit."""
    return _options(directory, {"--tls-ca": "ca.pem", "--tls-cert": f"{role}.pem", "--tls-key": f"{role}.key"})


def _options(directory: Path, files: dict[str, str]) -> list[str]:
    return [str(word) for option, name in files.items() for word in (option, directory / name)]
