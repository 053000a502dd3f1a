"""Throw-away certificates for mutual TLS on localhost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from processes import NotMeasured, ProgramFailed


def make(directory: Path) -> Path:
    """A folder with ca.pem, server.pem, server.key, client.pem and client.key."""
    if shutil.which("openssl") is None:
        raise NotMeasured("openssl is not installed")
    directory.mkdir()
    _openssl(directory, "req", "-x509", *_new_key("ca"), "-out", "ca.pem", "-subj", "/CN=bench", "-days", "2")
    (directory / "extensions").write_text("subjectAltName=DNS:localhost\n")
    for name in ("server", "client"):
        _openssl(directory, "req", *_new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        _openssl(
            directory,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "2", "-extfile", "extensions"),
        )
    return directory


def _new_key(name: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")


def _openssl(directory: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise ProgramFailed(f"openssl {words[0]}: {done.stderr.strip()}")
