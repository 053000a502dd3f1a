"""What `refit certs` makes, between a trainer, a service, a relay and a worker."""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from conftest import REFIT, SERVER, Service, eventually, run, shell


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "certs"
    assert run(REFIT, "certs", "-q", str(folder)).code == 0
    return folder


def test_what_is_there_stays_and_keys_are_the_owners(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    command = f"umask 000 && $REFIT certs -q {folder}"
    assert shell(command).code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.glob("*.key")]}
    assert modes.pop("certs") == 0o700
    assert len(modes) == 5 and set(modes.values()) == {0o600}, modes
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = shell(command)
    assert again.code == 1 and "not overwritten" in again.err, again
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def serve(certs: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """A service with mutual TLS and roles."""
    services = []

    def start(*flags: str, pair: str = "server", **changes: str) -> Service:
        services.append(Service(tmp_path, *server_flags(certs, pair), *flags, **changes))
        return services[-1]

    yield start
    for service in services:
        service.end()


def server_flags(certs: Path, pair: str) -> tuple[str, ...]:
    return ("--tls-cert", f"{certs}/{pair}.pem", "--tls-key", f"{certs}/{pair}.key", "--tls-client-ca", f"{certs}/ca.pem",
            "--roles", f"{certs}/roles")


def above(certs: Path, pair: str) -> tuple[str, ...]:
    return ("--upstream-tls-ca", f"{certs}/ca.pem", "--upstream-tls-cert", f"{certs}/{pair}.pem", "--upstream-tls-key",
            f"{certs}/{pair}.key")


def as_(certs: Path, pair: str) -> tuple[str, ...]:
    return "--tls-ca", f"{certs}/ca.pem", "--tls-cert", f"{certs}/{pair}.pem", "--tls-key", f"{certs}/{pair}.key"


def test_a_relay_has_a_pair_for_each_end(serve: Callable[..., Service], certs: Path) -> None:
    root = serve()
    # An address from a file or a manifest often has blanks and a newline around it.
    relay = serve(*above(certs, "relay"), REFIT_SERVER_UPSTREAM=f" {root.address}\n")
    assert root.refit("push", *as_(certs, "trainer"), "-q", "--synthetic", "gemma4_tiny", "--version", "1").code == 0
    pulled = relay.refit("pull", *as_(certs, "worker"), "--wait", "30")
    assert pulled.code == 0, pulled.err
    tree = root.refit("status", "--tree", *as_(certs, "viewer")).out
    assert "relay" in tree, tree


@pytest.mark.parametrize(("pair", "words"), [("worker", "has the role worker"), ("viewer", "has the role viewer")])
def test_a_relay_with_another_role_says_so(serve: Callable[..., Service], certs: Path, pair: str, words: str) -> None:
    relay = serve("--upstream", serve().address, *above(certs, pair))
    log = eventually(lambda: words in (text := relay.log.read_text()) and text, 30)
    assert "this call needs the role relay" in log


@pytest.mark.parametrize(("flags", "words"), [
    (lambda certs: server_flags(certs, "relay"), ("relay.pem' is not for services", "serverAuth")),
    (lambda certs: ("--upstream", "localhost:1", *above(certs, "server")), ("--upstream", "server.pem' is not for clients")),
    (lambda certs: ("--upstream", "localhost:1", *above(certs, "none")), ("--upstream", "none.pem")),
    (lambda certs: ("--upstream", "localhost:1", "--upstream-token-file", f"{certs}/none"), ("--upstream", "none")),
])
def test_files_that_cannot_serve_are_named_at_once(
        certs: Path, flags: Callable[[Path], tuple[str, ...]], words: tuple[str, ...]) -> None:
    done = run(SERVER, "--listen", "127.0.0.1:0", *flags(certs))
    assert done.code == 1
    for word in words:
        assert word in done.err, done.err


def test_who_cannot_connect_does_not_fill_the_log(serve: Callable[..., Service], certs: Path) -> None:
    service = serve()
    for options in ((), ("--tls-ca", f"{certs}/ca.pem")):  # plain text; no certificate
        for _ in range(3):
            assert service.refit("status", "--connect-timeout", "1.5", *options).code == 4
    lines = [line for line in service.log.read_text().splitlines() if "gRPC: " in line]
    assert 1 <= len(lines) <= 2, lines


def test_what_a_relay_shows_above_is_read_again(serve: Callable[..., Service], certs: Path, tmp_path: Path) -> None:
    for name in ("relay.pem", "relay.key"):
        (tmp_path / name).write_bytes((certs / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    root = serve()
    relay = serve("--upstream", root.address, "--upstream-tls-ca", f"{certs}/ca.pem", "--upstream-tls-cert",
                  f"{tmp_path}/relay.pem", "--upstream-tls-key", f"{tmp_path}/relay.key")
    eventually(lambda: "attending" in relay.log.read_text())
    (tmp_path / "relay.pem").write_text("half a certif")
    log = eventually(lambda: "cannot be used" in (text := relay.log.read_text()) and text)
    assert "relay.pem" in log and "for the service above" in log
