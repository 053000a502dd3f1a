"""refit-server's settings from a file, the environment and flags."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from conftest import SERVER, Done, environment, eventually, finish, run, start

ROOT = Path(__file__).parents[2]


def check(*flags: str, config: str | None = None, folder: Path | None = None, **variables: str) -> Done:
    """What it makes of its settings."""
    if config is not None:
        assert folder is not None
        (folder / "refit.toml").write_text(config)
        flags = ("--config", "refit.toml", *flags)
    return run(SERVER, *flags, "--print-config", cwd=folder, env=environment(**variables))


def printed(done: Done) -> dict[str, tuple[str, str]]:
    """By key: the value, and where it is from."""
    assert done.code == 0, done
    found = re.findall(r"^([a-z][a-z0-9-]*) = (.*)  # from (.*)$", done.out, flags=re.M)
    return {key: (value, origin) for key, value, origin in found}


def test_every_flag_is_a_key(tmp_path: Path) -> None:
    flags = set(re.findall(r"^  --([a-z0-9-]+)", run(SERVER, "--help").out, flags=re.M))
    keys = set(re.findall(r"^#?([a-z0-9-]+) = ", check().out, flags=re.M))
    assert flags - {"help", "version", "config", "print-config", "completion", "man-page"} == keys
    assert len(keys) > 40


def test_values_of_every_kind(tmp_path: Path) -> None:
    config = """
listen = ["127.0.0.1:0", "unix:/run/refit/socket"]
memory = "2GiB"
retain = 3
grace = 0.25
prefault = true
no-deltas = false
zone = 'a "b" \\ c'
socket-mode = 660
upstream = ["one:50051", "two:50051"]
"""
    done = check(config=config, folder=tmp_path)
    assert printed(done) == {
        "listen": ('["127.0.0.1:0", "unix:/run/refit/socket"]', "refit.toml:2"),
        "memory": ('"2GiB"', "refit.toml:3"),
        "retain": ("3", "refit.toml:4"),
        "grace": ("0.25", "refit.toml:5"),
        "prefault": ("true", "refit.toml:6"),
        "no-deltas": ("false", "refit.toml:7"),
        "zone": ('"a \\"b\\" \\\\ c"', "refit.toml:8"),
        "socket-mode": ("660", "refit.toml:9"),
        "upstream": ('["one:50051", "two:50051"]', "refit.toml:10"),
    }
    again = check(config=done.out, folder=tmp_path)
    assert {key: value for key, (value, _) in printed(again).items()} == {
        key: value for key, (value, _) in printed(done).items()
    }


def test_a_flag_wins_over_its_variable_and_that_over_the_file(tmp_path: Path) -> None:
    config = 'memory = "1GiB"\nretain = 1\nlisten = "127.0.0.1:1"\nzone = "file"\nno-deltas = true\n'
    variables = {"REFIT_SERVER_RETAIN": "2", "REFIT_SERVER_ZONE": "variable", "REFIT_SERVER_NO_DELTAS": "false"}
    done = check("--listen", "127.0.0.1:2", "--zone=flag", config=config, folder=tmp_path, **variables)
    assert printed(done) == {
        "listen": ('["127.0.0.1:2"]', "--listen"),
        "zone": ('"flag"', "--zone"),
        "memory": ('"1GiB"', "refit.toml:1"),
        "retain": ("2", "REFIT_SERVER_RETAIN"),
        "no-deltas": ("false", "REFIT_SERVER_NO_DELTAS"),
    }


WRONG = {
    "a slip": ("# note\n\nmemroy = '1GiB'\n", "refit.toml:3: there is no setting 'memroy'; did you mean 'memory'?"),
    "underscores": ("max_open_versions = 3\n", "refit.toml:1: there is no setting 'max_open_versions'; did you mean 'max-open-versions'?"),
    "Python's name": ("client_ca = 'x'\n", "did you mean 'tls-client-ca'?"),
    "the opposite": ("\ndeltas = false\n", "refit.toml:2: there is no setting 'deltas'; did you mean 'no-deltas'?"),
    "nothing near": ("frobnication-of-weights = 1\n", "refit.toml:1: there is no setting 'frobnication-of-weights'; refit-server --print-config shows all"),
    "a wrong value": ("retain = 1\nmemory = 'much'\n", "refit.toml:2: memory: expected a size such as 16GiB, got 'much'"),
    "a switch that is neither": ("prefault = 'perhaps'\n", "refit.toml:1: prefault: expected true or false, got 'perhaps'"),
    "several where one goes": ("memory = ['1GiB', '2GiB']\n", "refit.toml:1: memory: expected one value, got '[1GiB,2GiB]'"),
    "a section": ("[tls]\ncert = 'x'\n", "refit.toml:1: tls: there are no sections"),
    "a date": ("retain = 2026-01-01\n", "refit.toml:1: retain: expected text, a number, true or false"),
    "octal": ("socket-mode = 0o660\n", "refit.toml:1: socket-mode: write the number in decimal"),
    "no TOML": ("memory = 1GiB\n", "refit.toml:1: "),
    "a flag": ("retain = 1\n--memory 1GiB\n", "refit.toml:2: "),
    "twice": ("retain = 1\nretain = 2\n", "refit.toml:2: "),
    "an end too soon": ('zone = "a', "refit.toml:1: "),
    "bytes that are no text": ("zone = '\udcff'\n", "refit.toml:1: "),
    "the file itself": ("config = 'x'\n", "refit.toml:1: there is no setting 'config'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_line(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    (tmp_path / "refit.toml").write_bytes(text.encode(errors="surrogateescape"))
    done = run(SERVER, "--config", "refit.toml", cwd=tmp_path)
    assert done.code == 2 and done.err.startswith("refit-server: ") and words in done.err, done
    assert done.err.count("\n") == 1, done


def test_a_wrong_variable_and_a_wrong_flag_are_named() -> None:
    done = check(REFIT_SERVER_MEMORY="lots")
    assert done.code == 2 and "REFIT_SERVER_MEMORY: memory: expected a size such as 16GiB, got 'lots'" in done.err
    done = check("--memory", "lots")
    assert done.code == 2 and "refit-server: --memory: expected a size such as 16GiB, got 'lots'" in done.err


@pytest.mark.parametrize("path", ["nowhere.toml", "."])
def test_a_file_that_cannot_be_read(path: str, tmp_path: Path) -> None:
    done = run(SERVER, "--config", path, cwd=tmp_path)
    assert done.code == 2 and f"cannot read '{path}'" in done.err, done


def test_a_device_is_no_file_of_settings() -> None:
    """It has no end. (The program ended with std::bad_alloc.)"""
    done = run(SERVER, "--config", "/dev/zero")
    assert done.code == 2 and "'/dev/zero' is longer than 1048576 bytes" in done.err, done


def test_line_ends_and_marks_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "refit.toml").write_bytes(b"\xef\xbb\xbfretain = 4\r\nmemory = '1GiB'\r\n")
    done = run(SERVER, "--config", "refit.toml", "--print-config", cwd=tmp_path)
    assert printed(done) == {"retain": ("4", "refit.toml:1"), "memory": ('"1GiB"', "refit.toml:2")}


def test_variables_that_are_not_ours(tmp_path: Path) -> None:
    """Kubernetes sets them for a Service called refit-server. Empty ones say nothing."""
    variables = {
        "REFIT_SERVER_PORT": "tcp://10.0.0.7:50051",
        "REFIT_SERVER_SERVICE_HOST": "10.0.0.7",
        "REFIT_SERVER_PORT_50051_TCP": "tcp://10.0.0.7:50051",
        "REFIT_SERVER": "10.0.0.7:50051",
        "REFIT_SERVER_ZONE": "",
    }
    assert printed(check(**variables)) == {}


def test_what_is_around_a_variable_is_no_part_of_it() -> None:
    """A secret that is a file ends in a newline; a list is written with blanks."""
    done = check(REFIT_SERVER_NO_SHARED_MEMORY="true\n", REFIT_SERVER_LOG_LEVEL=" debug ", REFIT_SERVER_ZONE="a\r\n",
                 REFIT_SERVER_UPSTREAM=" one:1, two:2\n")
    assert {key: value for key, (value, _) in printed(done).items()} == {
        "no-shared-memory": "true", "log-level": '"debug"', "zone": '"a"', "upstream": '["one:1", "two:2"]'}


def test_it_serves_with_a_file_from_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "refit.toml"
    config.write_text(f"listen = '127.0.0.1:0'\nport-file = '{tmp_path}/port'\nmemory = '64MiB'\ngrace = 0\n")
    server = start(SERVER, env=environment(REFIT_SERVER_CONFIG=f"{config}\n"))
    eventually(lambda: (tmp_path / "port").exists() and (tmp_path / "port").read_text().endswith("\n"))
    server.send_signal(signal.SIGTERM)
    assert finish(server).code == 0


def test_the_file_of_the_unit_is_good() -> None:
    done = run(SERVER, "--config", str(ROOT / "deploy/systemd/refit-server.toml"), "--print-config")
    assert printed(done)["spool"][0] == '"/var/lib/refit"'
    unit = (ROOT / "deploy/systemd/refit-server.service").read_text()
    assert "refit-server --config /etc/refit/refit-server.toml" in unit
