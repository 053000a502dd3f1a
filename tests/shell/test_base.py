"""Pulls with a base, as users do them: right and wrong files, files that change or go away, one file for both.

../SITUATIONS.md lists the reports."""
from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from conftest import REFIT, Done, Service, eventually, finish, on_terminal, run, shell

SYNTHETIC = ("--synthetic", "gemma4_tiny")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Bytes go over the connection, as between hosts. Has version 1; version 2 is not pushed yet."""
    served = Service(tmp_path, "--no-shared-memory")
    push(served, 1)
    yield served
    served.end()


def push(service: Service, version: int) -> None:
    """Each version is a training step after the one before it."""
    done = service.refit("push", *SYNTHETIC, "-v", str(version), "--step", str(version - 1), "--change", "0.01")
    assert done.code == 0, done


def pull(service: Service, *arguments: str) -> dict[str, Any]:
    done = service.refit("pull", *arguments, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its data."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + size]), content[8 + size:]


def write(path: Path, head: dict[str, Any], data: bytes) -> None:
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def old(service: Service, tmp_path: Path) -> Path:
    """Version 1 as a file."""
    path = tmp_path / "old.safetensors"
    pull(service, "--out", str(path))
    return path


def expect_whole(service: Service, path: Path, version: int, *arguments: str) -> None:
    plain = path.with_suffix(".plain")
    pull(service, "-v", str(version), "--out", str(plain), *arguments)
    assert path.read_bytes() == plain.read_bytes()


def expect_refused(report: dict[str, Any], *words: str) -> None:
    assert report["base_version"] is None and report["wire_bytes"] == report["bytes"], report
    assert all(word in report["base_refused"] for word in words), report
    assert report["changed_elements"] == report["chunks"]["delta"] == report["chunks"]["unchanged"] == 0, report


def test_only_what_has_changed_comes(service: Service, old: Path, tmp_path: Path) -> None:
    push(service, 2)
    new = tmp_path / "new.safetensors"
    report = pull(service, "--base", str(old), "--out", str(new))
    assert report["base_version"] == 1 and report["base_refused"] is None, report
    assert 0 < report["wire_bytes"] < report["bytes"] / 20, report
    assert report["changed_elements"] > 0 and report["chunks"]["delta"] > 0, report
    expect_whole(service, new, 2)


def test_a_pull_without_a_base_reports_all_the_same(service: Service) -> None:
    report = pull(service)
    assert report["wire_bytes"] == report["bytes"] and report["base_version"] is None, report
    assert report["base_refused"] is None and report["chunks"]["raw"] > 0, report


def test_a_file_says_which_version_it_is(old: Path) -> None:
    metadata = header(old)[0]["__metadata__"]
    assert metadata == {"format": "pt", "refit.version": "1", "refit.trainer_epoch": "0",
                        "refit.chunk_bytes": str(2 << 20)}


def test_base_and_output_may_be_one_file(service: Service, old: Path) -> None:
    """bsdiff4#1, librsync#236."""
    for version in (2, 3):
        push(service, version)
        report = pull(service, "--base", str(old), "--out", str(old))
        assert report["base_version"] == version - 1 and report["wire_bytes"] < report["bytes"] / 20, report
        expect_whole(service, old, version)
    assert not [left for left in os.listdir(old.parent) if left.startswith(".")]


def test_a_version_that_is_here_already(service: Service, old: Path) -> None:
    """xdelta#155, qwat-data-model#341: applied to its own result."""
    for _ in range(2):
        done = service.refit("pull", "--base", str(old), "--out", str(old))
        assert done.code == 0 and "unchanged since version 1" in done.out, done
    expect_whole(service, old, 1)


def test_back_to_an_earlier_version(service: Service, old: Path) -> None:
    push(service, 2)
    pull(service, "--base", str(old), "--out", str(old))
    report = pull(service, "-v", "1", "--base", str(old), "--out", str(old))
    assert report["base_version"] == 2, report
    expect_whole(service, old, 1)


@pytest.mark.parametrize("columns", [None, 60, 80, 120])
def test_the_report(columns: int | None, service: Service, old: Path) -> None:
    push(service, 2)
    command = ("pull", "--base", str(old), "-s", service.address)
    done = run(REFIT, *command) if columns is None else on_terminal(REFIT, *command, columns=columns)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line and line.split()[0] in ("base", "wire", "total")}
    assert done.code == 0 and set(rows) == {"base", "wire", "total"}, done
    assert rows["base"][1:3] == rows["total"][1:3] != rows["wire"][1:3], done
    assert f"as {' '.join(rows['wire'][1:3])} of changes since version 1, digests match" in text, done


def test_a_base_that_the_service_does_not_have(service: Service, old: Path, tmp_path: Path) -> None:
    """Squirrel.Windows#959: what is missing comes whole."""
    new = tmp_path / "new.safetensors"
    report = pull(service, "--base", str(old), "--base-version", "77", "--out", str(new))
    expect_refused(report, "no version 77")
    done = service.refit("pull", "--base", str(old), "--base-version", "77")
    assert done.code == 0 and "; the base was not used: this service has no version 77" in done.out, done
    expect_whole(service, new, 1)


def test_a_base_of_an_earlier_service(service: Service, old: Path, tmp_path: Path) -> None:
    """A service that was started again, and has other versions of the same numbers."""
    other = Service(tmp_path, "--no-shared-memory")
    assert other.refit("push", *SYNTHETIC, "-v", "1", "--seed", "5").code == 0
    assert other.refit("push", *SYNTHETIC, "-v", "2", "--seed", "6").code == 0
    new = tmp_path / "new.safetensors"
    expect_refused(pull(other, "--base", str(old), "--out", str(new)), "other bytes")
    expect_whole(other, new, 2)
    other.end()


def test_a_base_of_another_run(service: Service, old: Path) -> None:
    assert service.refit("push", *SYNTHETIC, "-v", "1", "--epoch", "3", "--seed", "9").code == 0
    report = pull(service, "--base", str(old))
    assert report["version"]["trainer_epoch"] == 3 and report["base_version"] == 1, report
    expect_refused(pull(service, "--base", str(old), "--base-epoch", "3"), "other bytes")


def test_a_service_that_sends_no_deltas(old: Path, tmp_path: Path) -> None:
    plain = Service(tmp_path, "--no-shared-memory", "--no-deltas")
    push(plain, 1)
    expect_refused(pull(plain, "--base", str(old)), "--no-deltas")
    plain.end()


def test_a_base_of_other_tensors(service: Service, old: Path, tmp_path: Path) -> None:
    """xdelta#199, DeltaPatcher#22: a wrong file is told, and harms nothing."""
    push(service, 2)
    new = tmp_path / "new.safetensors"
    expect_refused(pull(service, "--base", str(old), "--filter", "router", "--out", str(new)), "other bytes")
    expect_whole(service, new, 2, "--filter", "router")
    report = pull(service, "--base", str(new), "--filter", "router", "--out", str(new))
    assert report["base_version"] == 2 and report["wire_bytes"] == 0, report
    expect_refused(pull(service, "--base", str(new)), "other bytes")


def test_parts_of_tensors(service: Service, tmp_path: Path) -> None:
    parts = [("--ep-rank", str(rank), "--ep-size", "2") for rank in range(2)]
    files = [tmp_path / f"part{rank}.safetensors" for rank in range(2)]
    for part, file in zip(parts, files):
        pull(service, *part, "--out", str(file))
    push(service, 2)
    report = pull(service, *parts[0], "--base", str(files[0]), "--out", str(files[0]))
    assert report["base_version"] == 1 and 0 < report["wire_bytes"] < report["bytes"] / 20, report
    expect_whole(service, files[0], 2, *parts[0])
    expect_refused(pull(service, *parts[0], "--base", str(files[1]), "--out", str(files[1])))
    expect_whole(service, files[1], 2, *parts[0])


def test_a_file_that_lost_its_metadata(service: Service, old: Path) -> None:
    """safetensors#549: saved again by a program that does not keep metadata."""
    head, data = header(old)
    del head["__metadata__"]
    write(old, head, data)
    done = service.refit("pull", "--base", str(old))
    assert done.code == 2 and "does not say which version it is: --base-version is needed" in done.err, done
    report = pull(service, "--base", str(old), "--base-version", "1")
    assert report["base_version"] == 1 and report["wire_bytes"] == 0, report


@pytest.mark.parametrize("key, value", [("version", "0"), ("version", "seven"), ("version", "-1"), ("chunk_bytes", "0"),
                                        ("trainer_epoch", "1.5"), ("version", "99999999999999999999")])
def test_metadata_that_is_no_number(key: str, value: str, service: Service, old: Path) -> None:
    head, data = header(old)
    head["__metadata__"][f"refit.{key}"] = value
    write(old, head, data)
    done = service.refit("pull", "--base", str(old))
    assert done.code == 1 and f"metadata refit.{key}: expected a number" in done.err and value in done.err, done


def test_files_that_are_no_base(service: Service, old: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(old.read_bytes()[:-100])
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors here, but more than eight bytes")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, code, word in ((tmp_path / "missing", 3, "No such file"), (cut, 1, "truncated"), (text, 1, "header"),
                             (empty, 1, "header length"), (pipe, 1, "no regular file")):
        done = service.refit("pull", "--base", str(path), "--out", str(tmp_path / "out"))
        assert done.code == code and word in done.err and str(path) in done.err, done
        assert len(done.err.splitlines()) == 1 and not (tmp_path / "out").exists(), done


@pytest.mark.parametrize("arguments", [("--base-version", "1"), ("--base-epoch", "1"),
                                       ("--base", "x", "--base-version", "0"), ("--base", "x", "--base-version", "latest"),
                                       ("--base", "x", "--base-epoch", "-1"), ("--base", "")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(REFIT, "pull", *arguments)
    assert done.code == 2 and "--base" in done.err, done


@pytest.mark.parametrize("name", ["old file.safetensors", "öld-文件.safetensors", "-old.safetensors", "a\nb.safetensors"])
def test_names_of_files(name: str, service: Service, old: Path) -> None:
    """Squirrel.Windows#1898: deltas and a name with spaces."""
    old.rename(old.with_name(name))
    done = service.refit("pull", f"--base={name}", f"--out={name}", cwd=old.parent)
    assert done.code == 0 and "unchanged since version 1" in done.out, done


def test_a_base_and_a_pipe(service: Service, old: Path) -> None:
    """zstd#2195: one side is a pipe."""
    push(service, 2)
    done = shell(f"$REFIT pull --base {old} --out - -q -s {service.address} | cat >{old}.piped")
    assert done.code == 0 and done.err == "", done
    expect_whole(service, old.with_name(old.name + ".piped"), 2)


def test_a_base_that_changes_before_it_is_used(service: Service, old: Path, tmp_path: Path) -> None:
    """FastRsyncNet#11: the basis changed after its digest was taken."""
    new = tmp_path / "new.safetensors"
    waiting = service.start("pull", "-v", "2", "--wait", "30", "--base", str(old), "--out", str(new), "--worker", "w",
                            "--json")
    eventually(lambda: re.search(r"^w +watching", service.refit("status").out, flags=re.M))
    with old.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"\xff" * 500)
    push(service, 2)
    done = finish(waiting)
    report = json.loads(done.out)
    assert done.code == 0 and report["base_version"] == 1 and "not the one that the service has" in report["base_refused"]
    expect_whole(service, new, 2)


def test_a_base_that_is_cut_before_it_is_used(service: Service, old: Path, tmp_path: Path) -> None:
    """oc-rsync#7052, rsync#390: no SIGBUS."""
    new = tmp_path / "new.safetensors"
    waiting = service.start("pull", "-v", "2", "--wait", "30", "--base", str(old), "--out", str(new), "--worker", "w",
                            "--json")
    eventually(lambda: re.search(r"^w +watching", service.refit("status").out, flags=re.M))
    os.truncate(old, 5000)
    push(service, 2)
    done = finish(waiting)
    assert done.code == 0 and "truncated" in json.loads(done.out)["base_refused"], done
    expect_whole(service, new, 2)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_pull_leaves_the_old_file(how: signal.Signals, service: Service, old: Path) -> None:
    """velopack#751: an update that did not end well is no obstacle to the next one."""
    before = old.read_bytes()
    pushing = service.start("push", *SYNTHETIC, "-v", "2", "--rank", "0", "--world", "2")  # the other rank never comes
    pulling = service.start("pull", "-v", "2", "--wait", "30", "--base", str(old), "--out", str(old), "--worker", "w")
    eventually(lambda: "pulling" in service.refit("status").out)
    pulling.send_signal(how)
    done = finish(pulling)
    assert done.code == (-9 if how == signal.SIGKILL else 130) and old.read_bytes() == before, done
    pushing.send_signal(signal.SIGINT)
    finish(pushing)
    push(service, 3)
    assert pull(service, "--base", str(old), "--out", str(old))["base_version"] == 1
    expect_whole(service, old, 3)


def test_a_full_disk_leaves_the_old_file(service: Service, old: Path) -> None:
    """remarkable-hacks#2. (A limit on the size of files, as the disk itself should not be filled.)"""
    before = old.read_bytes()
    push(service, 2)
    done = shell(f"trap '' XFSZ; ulimit -f 8; exec $REFIT pull --base {old} --out {old} -s {service.address} -q")
    assert done.code == 1 and str(old) in done.err and old.read_bytes() == before, done
    assert pull(service, "--base", str(old), "--out", str(old))["base_version"] == 1


def test_two_pulls_of_one_file(service: Service, old: Path) -> None:
    push(service, 2)
    both = [service.start("pull", "--base", str(old), "--out", str(old), "--json") for _ in range(2)]
    for process in both:
        done = finish(process)
        assert done.code == 0 and json.loads(done.out)["base_version"] in (1, 2), done
    expect_whole(service, old, 2)


def followed(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The next line of a `follow --json`."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def test_follow_uses_its_file(service: Service, tmp_path: Path) -> None:
    policy = tmp_path / "policy.safetensors"
    following = service.start("follow", "--out", str(policy), "--json")
    first = followed(following)
    assert first["base_version"] is None and first["wire_bytes"] == first["bytes"], first
    for version in (2, 3):
        push(service, version)
        report = followed(following)
        assert report["base_version"] == version - 1 and report["base_refused"] is None, report
        assert report["wire_bytes"] < report["bytes"] / 20 and report["changed_elements"] > 0, report
        expect_whole(service, policy, version)
    following.send_signal(signal.SIGINT)
    assert finish(following).code == 130


def test_follow_that_is_started_again_uses_its_file(service: Service, old: Path) -> None:
    """ostree#1395: a delta after an interruption, too."""
    push(service, 2)
    done = service.refit("follow", "--out", str(old), "--count", "1")
    assert done.code == 0 and "of changes since version 1, staged in" in done.out, done
    expect_whole(service, old, 2)


def test_follow_without_deltas(service: Service, old: Path) -> None:
    push(service, 2)
    done = service.refit("follow", "--out", str(old), "--count", "1", "--no-deltas", "--json")
    report = json.loads(done.out)
    assert done.code == 0 and report["base_version"] is None and report["base_refused"] is None, done
    assert report["wire_bytes"] == report["bytes"], done


def test_follow_over_a_file_that_is_no_base(service: Service, old: Path) -> None:
    for content, word in ((old.read_bytes()[:-1], "truncated"), (b"something else", "header")):
        old.write_bytes(content)
        done = service.refit("follow", "--out", str(old), "--count", "1")
        assert done.code == 0 and word in done.err and done.err.endswith("; the first version comes whole\n"), done
        expect_whole(service, old, 1)


def test_follow_whose_file_is_cut_or_removed(service: Service, tmp_path: Path) -> None:
    policy = tmp_path / "policy.safetensors"
    following = service.start("follow", "--out", str(policy), "--json")
    followed(following)
    os.truncate(policy, 5000)
    push(service, 2)
    report = followed(following)
    assert "truncated" in report["base_refused"], report
    expect_whole(service, policy, 2)
    policy.unlink()
    push(service, 3)
    assert followed(following)["base_version"] == 2  # the worker still has it
    expect_whole(service, policy, 3)
    following.send_signal(signal.SIGINT)
    finish(following)


def test_on_one_host_nothing_is_moved(old: Path, tmp_path: Path) -> None:
    local = Service(tmp_path)
    push(local, 1)
    push(local, 2)
    report = pull(local, "--base", str(old))
    assert report["base_version"] is None, report
    done: Done = local.refit("follow", "--out", str(old), "--count", "1")
    assert done.code == 0 and done.out.count("the base was not used") <= 1, done
    local.end()


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_status_shows_what_was_sent(columns: int, service: Service, old: Path) -> None:
    push(service, 2)
    wire = pull(service, "--base", str(old), "--worker", "w0")["wire_bytes"]
    (worker,) = json.loads(service.refit("status", "--json").out)["workers"][-1:]
    assert worker["wire_bytes"] == wire and worker["base_version"] == 1 and worker["sent_bytes"] > wire, worker
    done = on_terminal(REFIT, "status", "-s", service.address, columns=columns)
    table = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.out).splitlines()]
    assert done.code == 0 and all(len(line) <= columns for line in table[-5:]), done
    assert ("since 1" in done.out) == (columns >= 120) or columns < 120, done


def test_the_fleet_shows_what_was_sent(service: Service, old: Path) -> None:
    push(service, 2)
    pull(service, "--base", str(old), "--worker", "w0")
    done = service.refit("watch", "--fleet", "--timeout", "0.3")
    assert done.code == 0 and re.search(r"worker w0 .* \([0-9.]+ k?B since version 1\)", done.out), done
