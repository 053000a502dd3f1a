"""What users of other command lines have reported, tried on ours; ../SITUATIONS.md lists the reports."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BIN, COMMANDS, REFIT, Service, environment, eventually, finish, on_terminal, run, shell

LISTINGS = ("status", "versions", "versions --json", "describe 1", "describe 1 --json", "status --json")


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_has_enough_is_no_error(listing: str, reader: str, shared_service: Service) -> None:
    """aws-cli#10538, B2#1071."""
    done = shell(f"$REFIT {listing} -s {shared_service.address} | {reader}; echo ${{PIPESTATUS[0]}}")
    assert done.out.splitlines()[-1] == "0" and done.err == "", done


def test_help_into_head() -> None:
    done = shell("$REFIT push --help | head -1; echo ${PIPESTATUS[0]}")
    assert done.out.splitlines()[-1] == "0" and done.err == "", done


def test_a_full_pipe_whose_reader_goes_late(shared_service: Service) -> None:
    """More than a pipe holds: the writer waits for its reader when that goes."""
    line = f"$REFIT describe 1 --json -s {shared_service.address}"
    done = shell(f"{line} | (sleep 0.5; head -c 10); echo; echo ${{PIPESTATUS[0]}}")
    assert len(shell(line).out) > 3 * 4096 and done.out.splitlines()[-1] == "0" and done.err == "", done


@pytest.mark.parametrize("command", [("push", "--synthetic", "gemma4_tiny"), ("pull",)])
def test_progress_in_a_pipe_is_lines(command: tuple[str, ...], service: Service) -> None:
    """datalad#3092, mbed-cli#612."""
    assert service.refit("push", "--synthetic", "gemma4_tiny").code == 0
    done = service.refit(*command)
    assert done.code == 0 and "\r" not in done.err + done.out and "\x1b" not in done.err + done.out, done


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {"TERM": None}],
                         ids=["NO_COLOR", "dumb", "empty", "none"])
@pytest.mark.parametrize("command", [("push", "--synthetic", "gemma4_tiny"), ("pull",), ("status",), ("versions",),
                                     ("watch", "--fleet", "--timeout", "0.5")])
def test_terminals_that_take_no_escapes(command: tuple[str, ...], changes: dict[str, str | None],
                                        service: Service) -> None:
    """clap#847, a8m/pb#82."""
    assert service.refit("push", "--synthetic", "gemma4_tiny").code == 0
    done = on_terminal(REFIT, *command, "-s", service.address, **changes)
    assert done.code == 0 and "\x1b" not in done.out and "\r" not in done.out, done


@pytest.mark.parametrize("columns", [0, 1, 5, 20, 60])
@pytest.mark.parametrize("command", [("push", "--synthetic", "gemma4_tiny"), ("pull",), ("status",), ("versions",),
                                     ("describe", "latest", "--limit", "3"), ("watch", "--fleet", "--timeout", "0.5")])
def test_terminals_of_any_width(command: tuple[str, ...], columns: int, service: Service) -> None:
    """curl#4818, aws-cdk#8675, henrik/progress_bar#9: nothing crashes, and bars stay on their line."""
    assert service.refit("push", "--synthetic", "gemma4_tiny").code == 0
    done = on_terminal(REFIT, *command, "-s", service.address, columns=columns)
    assert done.code == 0, done
    drawn = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", done.out)]
    bars = [line for line in drawn if " %" in line and command[0] in ("push", "pull")]
    assert all(len(line) < columns for line in bars) or columns == 0, bars


@pytest.mark.parametrize("descriptors", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_descriptors_are_not_written_to(descriptors: tuple[int, ...], service: Service, tmp_path: Path) -> None:
    """circus#417, arangodb#11503: a file that is opened takes the number of a closed stdout, and reports land in it."""
    out = tmp_path / "out.safetensors"
    assert service.refit("push", "--synthetic", "gemma4_tiny", "--version", "1").code == 0
    redirections = " ".join(f"{d}{'<' if d == 0 else '>'}&-" for d in descriptors)
    done = shell(f"$REFIT pull -s {service.address} --out {out} {redirections}; echo $? >{tmp_path}/code")
    code = int((tmp_path / "code").read_text())
    assert code in ((0,) if 1 not in descriptors else (0, 1)), done
    again = tmp_path / "again.safetensors"
    assert service.refit("pull", "--out", str(again)).code == 0
    assert out.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("descriptors", [(0,), (1,), (0, 1, 2)])
def test_a_push_and_a_conversion_without_descriptors(descriptors: tuple[int, ...], service: Service,
                                                     tmp_path: Path) -> None:
    redirections = " ".join(f"{d}{'<' if d == 0 else '>'}&-" for d in descriptors)
    shell(f"$REFIT push --synthetic gemma4_tiny --version 1 -s {service.address} {redirections}")
    assert "committed" in service.refit("versions").out
    native = Path(__file__).parents[1] / "data/golden/g_convert_0.in.safetensors"
    for out, how in ((tmp_path / "a", redirections), (tmp_path / "b", "")):
        shell(f"$REFIT convert --to hf --experts 5 {native} {out} {how}")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_refit_server_without_descriptors(tmp_path: Path) -> None:
    port = tmp_path / "port"
    server = subprocess.Popen(["bash", "-c", f"exec {BIN}/refit-server --listen 127.0.0.1:0 --port-file {port} "
                               f"--spool {tmp_path}/spool 0<&- 1>&- 2>&-"], env=environment())
    try:
        eventually(lambda: port.exists() and port.read_text().strip())
        address = f"127.0.0.1:{port.read_text().strip()}"
        assert run(REFIT, "push", "--synthetic", "gemma4_tiny", "--version", "1", "-s", address).code == 0
        done = run(REFIT, "pull", "--verify-synthetic", "gemma4_tiny", "-s", address)
        assert done.code == 0, done
        assert port.read_text() == address.split(":")[1] + "\n"
    finally:
        server.terminate()
        assert server.wait(20) == 0


@pytest.mark.parametrize("gone", ["HOME", "USER", "PATH", "TMPDIR", "LANG", "TERM"])
def test_an_environment_without(gone: str, shared_service: Service) -> None:
    """brightbox-cli#91, fosrl/cli#44."""
    for command in (("status",), ("pull", "--verify-synthetic", "gemma4_tiny")):
        done = shared_service.refit(*command, env=environment(**{gone: None}))
        assert done.code == 0, done


@pytest.mark.parametrize("command", ["status", "versions", "pull"])
def test_an_address_from_a_secret_ends_in_a_newline(command: str, shared_service: Service) -> None:
    done = run(REFIT, command, env=environment(REFIT_SERVER=f" {shared_service.address}\r\n", REFIT_ZONE="a\n"))
    assert done.code in (0, 3), done
    assert "address" not in done.err, done


def test_no_environment_at_all(shared_service: Service) -> None:
    done = shared_service.refit("pull", "--verify-synthetic", "gemma4_tiny", env={})
    assert done.code == 0, done


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "de_DE.UTF-8", "nowhere"])
def test_any_locale(locale: str, service: Service) -> None:
    """poetry#1849, B2#914: names go through as they are, numbers have points."""
    name = "größe-模型"
    env = environment(LC_ALL=locale, LANG=locale)
    pushed = service.refit("push", "--synthetic", "gemma4_tiny", "-m", name, env=env)
    assert pushed.code == 0 and "MB" in pushed.out and not re.search(r"\d,\d", pushed.out), pushed
    assert name in service.refit("versions", env=env).out
    listed = json.loads(service.refit("versions", "--json", env=env).out)
    assert listed["versions"][0]["model"] == name


def test_names_do_not_drive_the_terminal(service: Service) -> None:
    """firejail#5613, sbsh#390."""
    name = "evil\x1b[2J\x1b]0;title\x07\rname"
    assert service.refit("push", "--synthetic", "gemma4_tiny", "-m", name, "--publisher", name).code == 0
    for command in (("versions",), ("status",), ("describe", "latest", "-m", name), ("abort", "1", "--reason", name, "-m", name)):
        done = on_terminal(REFIT, *command, "-s", service.address, NO_COLOR="1")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", done.out), done
    done = service.refit("watch", "--timeout", "0.5", "-m", name)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", done.out + done.err), done


def test_files_that_begin_with_a_dash(tmp_path: Path, service: Service) -> None:
    """xxHash#430: -- ends the options."""
    native = Path(__file__).parents[1] / "data/golden/g_convert_0.in.safetensors"
    (tmp_path / "-x.safetensors").write_bytes(native.read_bytes())
    done = run(REFIT, "push", "-s", service.address, "--", "-x.safetensors", cwd=tmp_path)
    assert done.code == 0, done


def test_jobs_outlive_their_terminal(service: Service) -> None:
    """nohup: SIGHUP stays ignored."""
    process = service.start("watch", "--timeout", "2", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    assert finish(process).code == 0


def test_a_wait_that_is_over_is_no_success(service: Service) -> None:
    """rclone#429, kubernetes#73056: whatever did not come about is told by the exit code."""
    assert service.refit("pull", "--wait", "0.5").code == 5
    assert service.refit("follow", "--count", "1", "--timeout", "0.5").code == 5
    assert service.refit("await", "1", "--timeout", "0.5").code == 5
    assert service.refit("watch", "--until", "1", "--timeout", "0.5").code == 5
    assert service.refit("push", "--synthetic", "gemma4_tiny", "--version", "1").code == 0
    assert service.refit("push", "--synthetic", "gemma4_tiny", "--version", "1").code == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_stdin_is_not_read(command: str) -> None:
    """kubernetes#56453: in `while read` loops and over ssh, what a command does not need stays for others."""
    done = shell(f"printf 'a\\nb\\n' | (while read line; do $REFIT {command} --help >/dev/null; echo $line; done)")
    assert done.out.split() == ["a", "b"], done
