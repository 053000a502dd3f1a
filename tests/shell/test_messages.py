"""What goes wrong is one line that a stranger understands: every command, every kind of failure."""
from __future__ import annotations

import re
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest
from conftest import CALLS, REFIT, SERVER, SLOWNESS, Done, Service, eventually, finish, run

LONGEST = 400
# gRPC's own words, which say nothing to users.
NOISE = ("failed to connect to all addresses", "last error", "C-ares", "UNKNOWN:", "INTERNAL:", "UNAVAILABLE:",
         "SSL_ERROR", "is_balancer", "ipv4:127.0.0.1:1", "StatusCode", "grpc_status", "absl::")


def check_line(done: Done, code: int, *words: str) -> None:
    """One line, with these words, that says each thing once."""
    assert done.code == code and done.out == "", done
    said = [line for line in done.err.splitlines() if not re.match(r"(push version \d+|pull): ", line)]
    assert len(said) == 1 and said[0].startswith("refit: "), done
    line = said[0]
    assert len(line) <= LONGEST, line
    assert not [word for word in NOISE if word in line], line
    parts = [part.strip() for part in line.split(": ")]
    repeated = [part for part, following in zip(parts, parts[1:]) if part == following or following.startswith(part + " ")]
    assert not repeated, f"{repeated} twice in: {line}"
    assert not re.search(r"\b1 (workers|versions|tensors|models|ranks|bytes)\b", line), line
    for word in words:
        assert word in line, f"{word!r} is not in: {line}"


def short(name: str) -> tuple[str, ...]:
    """Of a command that would wait by design, one that does not wait long."""
    wait = f"{SLOWNESS:g}"
    return {"watch": ("watch", "--timeout", wait, "--until", "77"),
            "watch-fleet": ("watch", "--fleet", "--timeout", wait, "--until", "77"),
            "await": ("await", "77", "--timeout", wait),
            "pull-wait": ("pull", "--wait", wait, "--version", "77"),
            "follow": ("follow", "--timeout", wait, "--count", "2")}.get(name, CALLS[name])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "others"):
        assert run(REFIT, "certs", str(folder / name), "-q").code == 0
    (folder / "tokens").write_text("worker " + "w" * 40 + "\n")
    (folder / "wrong-token").write_text("x" * 40)
    for name in ("tokens", "wrong-token"):
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def tls(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    ours = certificates / "ours"
    served = Service(tmp_path_factory.mktemp("tls"), "--tls-cert", f"{ours}/server.pem", "--tls-key", f"{ours}/server.key",
                     "--tls-client-ca", f"{ours}/ca.pem", "--roles", f"{ours}/roles")
    yield served
    served.end()


@pytest.fixture(scope="module")
def guarded(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    served = Service(tmp_path_factory.mktemp("guarded"), "--tokens", f"{certificates}/tokens")
    yield served
    served.end()


@pytest.fixture(scope="module")
def web_server() -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection = listening.accept()[0]
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                connection.close()
            except OSError:
                return

    threading.Thread(target=answer, daemon=True).start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


def pair(folder: Path, name: str) -> tuple[str, ...]:
    return "--tls-cert", f"{folder}/{name}.pem", "--tls-key", f"{folder}/{name}.key"


def every_command_fails(code: int, address: str, options: tuple[str, ...], *words: str, but: tuple[str, ...] = ()) -> None:
    """Some at a time: most of them wait."""

    def fails(name: str) -> None:
        done = run(REFIT, *short(name), "-s", address, *options)
        try:
            check_line(done, code, *words)
        except AssertionError as error:
            raise AssertionError(f"refit {' '.join(short(name))}: {error}") from error

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fails, [name for name in CALLS if name not in but]))


def test_no_service() -> None:
    every_command_fails(4, "127.0.0.1:1", ("--connect-timeout", "0.3"), "127.0.0.1:1", "Connection refused", "service run")


def test_no_such_host() -> None:
    every_command_fails(4, "host.invalid:50051", ("--connect-timeout", "0.5"), "host.invalid:50051")


def test_no_socket() -> None:
    every_command_fails(4, "unix:/nowhere/socket", ("--connect-timeout", "0.3"), "unix:/nowhere/socket", "No such file")


def test_nobody_answers(silent_address: str) -> None:
    every_command_fails(4, silent_address, ("--connect-timeout", "0.3"), silent_address)


def test_a_web_server(web_server: str) -> None:
    every_command_fails(4, web_server, ("--connect-timeout", "0.5"), web_server, "no gRPC")


def test_tls_is_wanted(tls: Service) -> None:
    every_command_fails(4, tls.address, ("--connect-timeout", "0.5"), "without TLS?")


def test_tls_is_not_spoken(shared_service: Service, certificates: Path) -> None:
    options = ("--connect-timeout", "0.5", "--tls-ca", f"{certificates}/ours/ca.pem")
    every_command_fails(4, shared_service.address, options, "does not answer with TLS")


def test_another_authority(tls: Service, certificates: Path) -> None:
    options = ("--connect-timeout", "0.5", "--tls-ca", f"{certificates}/others/ca.pem")
    every_command_fails(4, f"localhost:{tls.port}", options, "certificate verify failed", "not signed by the authority")


def test_no_certificate(tls: Service, certificates: Path) -> None:
    options = ("--connect-timeout", "0.5", "--tls-ca", f"{certificates}/ours/ca.pem")
    every_command_fails(4, f"localhost:{tls.port}", options, "no certificate of ours")


def test_another_name(tls: Service, certificates: Path) -> None:
    ours = certificates / "ours"
    options = ("--connect-timeout", "0.5", "--tls-ca", f"{ours}/ca.pem", *pair(ours, "trainer"),
               "--tls-server-name", "other.example")
    every_command_fails(4, tls.address, options, "Hostname Verification", "for other names")


def test_no_token(guarded: Service) -> None:
    every_command_fails(1, guarded.address, (), "give a token", "--token-file", but=("follow",))


def test_a_wrong_token(guarded: Service, certificates: Path) -> None:
    every_command_fails(1, guarded.address, ("--token-file", f"{certificates}/wrong-token"), "none that this service knows",
                        but=("follow",))


def test_files_that_are_not_there(guarded: Service) -> None:
    every_command_fails(3, guarded.address, ("--token-file", "/nowhere/token"), "'/nowhere/token'", "No such file")
    every_command_fails(3, guarded.address, ("--tls-ca", "/nowhere/ca.pem"), "'/nowhere/ca.pem'", "No such file")


def test_follow_says_it_once(guarded: Service) -> None:
    done = guarded.refit("follow", "--timeout", "3", "--count", "1")
    said = done.err.splitlines()
    assert done.code == 5 and len(said) == 2, done
    assert "give a token" in said[0] and "trying on" in said[0]
    assert "0 of 1 version came within 3.00 s" in said[1]


@pytest.mark.parametrize("name", ["push", "release", "abort", "await"])
def test_a_role_that_may_not(name: str, tls: Service, certificates: Path) -> None:
    ours = certificates / "ours"
    done = run(REFIT, *short(name), "-s", f"localhost:{tls.port}", "--tls-ca", f"{ours}/ca.pem", *pair(ours, "viewer"))
    check_line(done, 1, "needs the role trainer", "'viewer' has the role viewer")


@pytest.mark.parametrize("command", [("pull",), ("pull", "--version", "1"), ("describe", "latest"), ("describe", "1"),
                                     ("abort", "1", "--reason", "x"), ("release", "1"), ("versions",), ("status",)])
def test_a_model_that_nobody_knows(command: tuple[str, ...], shared_service: Service) -> None:
    """rclone#1135: what is not there is told by the exit code, whichever way it is looked for."""
    check_line(shared_service.refit(*command, "-m", "nobody"), 3, "nobody")


@pytest.mark.parametrize("command", ["versions", "status"])
def test_models_that_are_known_are_named(command: str, shared_service: Service) -> None:
    check_line(shared_service.refit(command, "-m", "nobody", "--json"), 3, "known are default")
    assert shared_service.refit(command, "-m", "default").code == 0


@pytest.mark.parametrize("command", [("pull", "--version", "5"), ("describe", "5"), ("abort", "5", "--reason", "x"),
                                     ("release", "5"), ("describe", "1", "no.such.tensor")])
def test_what_is_not_there(command: tuple[str, ...], shared_service: Service) -> None:
    check_line(shared_service.refit(*command), 3, command[-1] if command[0] == "describe" else "5")


@pytest.mark.parametrize("command", [("push",), ("convert", "--to", "hf")])
@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty"])
def test_files_that_are_none(command: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "native.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text({"text": "no tensors here\n" * 100, "empty": ""}[kind])
    done = run(REFIT, *command, str(path), *((str(tmp_path / "out"),) if command[0] == "convert" else ()))
    check_line(done, 3 if command[0] == "push" and kind == "missing" else 1, str(path))


@pytest.mark.parametrize("command", [("status",), ("versions",), ("describe", "1"), ("versions", "--json"), ("--help",),
                                     ("push", "--help"), ("--version",)])
def test_a_full_disk(command: tuple[str, ...], shared_service: Service) -> None:
    address = () if command[-1] in ("--help", "--version") else ("-s", shared_service.address)
    with open("/dev/full", "wb") as full:
        done = run(REFIT, *command, *address, stdout=full)
    check_line(done, 1, "stdout could not be written")


def test_a_service_that_is_killed_amid_it(service: Service) -> None:
    pushing = service.start("push", "--synthetic", "gemma4_tiny", "--version", "2", "--rank", "0", "--world", "2")
    eventually(lambda: "joined" in service.refit("versions").out)
    pulling = service.start("pull", "--version", "2")
    eventually(lambda: '"pulling"' in service.refit("status", "--json").out)
    service.process.kill()
    check_line(finish(pushing, 60), 4, "default/2", service.address)
    check_line(finish(pulling, 60), 4, "default/2", service.address)


def test_an_aborted_version(service: Service) -> None:
    pushing = service.start("push", "--synthetic", "gemma4_tiny", "--version", "2", "--rank", "0", "--world", "2")
    eventually(lambda: "open" in service.refit("versions").out)
    pulling = service.start("pull", "--version", "2")
    eventually(lambda: '"pulling"' in service.refit("status", "--json").out)
    assert service.refit("abort", "2", "--reason", "the optimizer diverged").code == 0
    for process in (pushing, pulling):
        check_line(finish(process), 1, "default/2", "the optimizer diverged")
    check_line(service.refit("pull", "--version", "2"), 1, "the optimizer diverged")


def test_refit_server_says_why_it_cannot_start(shared_service: Service) -> None:
    for flags, words in ((("--listen", shared_service.address), "in use"), (("--listen", "nowhere"), "port"),
                         (("--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"), "/nowhere."), (("--retain", "many"), "many"),
                         (("--spool", "/proc/nowhere"), "/proc/nowhere")):
        done = run(SERVER, *flags, stderr=subprocess.PIPE)
        assert done.code in (1, 2) and words in done.err, done
