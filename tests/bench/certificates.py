"""Test certificates for mutual TLS on localhost."""

from __future__ import annotations

from pathlib import Path

from processes import run


def make(binaries: Path, directory: Path) -> Path:
    """Makes a folder with `refit certs`."""
    run("refit certs", [binaries / "refit", "certs", directory])
    return directory


def server_options(directory: Path) -> list[str]:
    """The options of refit-server for mutual TLS."""
    files = {"--tls-cert": "server.pem", "--tls-key": "server.key", "--tls-client-ca": "ca.pem"}
    return _options(directory, files)


def client_options(directory: Path, role: str) -> list[str]:
    """The options of bench-trainer, bench-worker and refit for mutual TLS."""
    return _options(directory, {"--tls-ca": "ca.pem", "--tls-cert": f"{role}.pem", "--tls-key": f"{role}.key"})


def _options(directory: Path, files: dict[str, str]) -> list[str]:
    return [str(word) for option, name in files.items() for word in (option, directory / name)]
