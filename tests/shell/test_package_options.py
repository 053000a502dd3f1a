"""What packages install of the programs: completion for shells, and manual pages."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path

import pytest
from conftest import COMMANDS, REFIT, SERVER, environment, finish, run, start

PROGRAMS = {"refit": REFIT, "refit-server": SERVER}


def script(program: str, shell: str, folder: Path) -> Path:
    done = run(PROGRAMS[program], "--completion", shell)
    assert done.code == 0 and not done.err, done
    path = folder / f"{program}.{shell}"
    path.write_text(done.out)
    return path


def flags_of(*command: str) -> set[str]:
    return set(
        re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", "\n".join(re.findall(r"^  -.*", run(*command, "--help").out, re.M)))
    )


# By what is typed, with the cursor at its end: some of what is offered, and what is not.
TYPED = {
    "refit pu": ({"push", "pull"}, {"follow"}),
    "refit ": (set(COMMANDS), set()),
    "refit --ver": ({"--version"}, set()),
    "refit push --dtype ": ({"BF16", "F32"}, {"--version", "push"}),
    "refit push --dtype B": ({"BF16"}, {"F32"}),
    "refit pull --o": ({"--out"}, {"--version"}),
    "refit pull --out poli": ({"policy.safetensors"}, {"--out"}),
    "refit push check": ({"checkpoint"}, {"push"}),
    "refit-server --upstream-tr": ({"--upstream-transport"}, set()),
    "refit-server --upstream-transport ": ({"auto", "tcp", "shared-memory"}, {"--listen"}),
    "refit-server --config ref": ({"refit.toml"}, set()),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    for name in ("policy.safetensors", "refit.toml"):
        (tmp_path / "files" / name).touch()
    (tmp_path / "files" / "checkpoint").mkdir()
    return tmp_path


def check(offered: set[str], typed: str) -> None:
    wanted, unwanted = TYPED.get(typed, ({"--help"}, set()))
    assert wanted <= offered and not unwanted & offered, offered


@pytest.mark.parametrize("typed", TYPED)
def test_bash(typed: str, folder: Path) -> None:
    words = typed.split(" ")
    path = script(words[0], "bash", folder)
    function = "_" + words[0].replace("-", "_")
    line = f'source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = run("bash", "-c", line, "bash", *words, cwd=folder / "files")
    assert done.code == 0 and not done.err, done
    check(set(done.out.split("\n")), typed)


def test_bash_with_an_equals_sign_and_a_name_with_spaces(folder: Path) -> None:
    (folder / "files" / "a policy.safetensors").touch()
    path = script("refit", "bash", folder)
    for words, offered in ((("push", "--dtype", "=", "B"), "BF16"), (("pull", "--out", "="), "a policy.safetensors")):
        line = f'source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _refit; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = run("bash", "-c", line, "bash", "refit", *words, cwd=folder / "files")
        assert offered in done.out.split("\n"), done


@pytest.mark.parametrize("typed", TYPED)
def test_fish(typed: str, folder: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("no fish: Debian's package fish has it")
    path = script(typed.split(" ")[0], "fish", folder)
    done = run("fish", "--no-config", "-c", f"source {path}; complete -C '{typed}'", cwd=folder / "files",
               env=environment(HOME=str(folder)))  # fmt: skip
    assert done.code == 0 and not done.err, done
    check({line.split("\t")[0].rstrip("/") for line in done.out.splitlines()}, typed)


# zsh completes only on a terminal. What its functions offer is noted on the way.
ZSH = """
PS1="READY>"; LISTMAX=9999; unsetopt prompt_cr prompt_sp; autoload -Uz compinit; compinit -u -D; source {script}; cd {folder}/files
compadd() {{
  [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]] || {{ local -a offered; builtin compadd -A offered "$@"; print -rl -- $offered >>{folder}/offered; }}
  builtin compadd "$@"
}}
"""


@pytest.mark.parametrize("typed", [*TYPED, *(f"refit {command} --he" for command in COMMANDS)])
def test_zsh(typed: str, folder: Path) -> None:
    if not shutil.which("zsh"):
        pytest.skip("no zsh: Debian's package zsh has it")
    (folder / ".zshrc").write_text(ZSH.format(script=script(typed.split(" ")[0], "zsh", folder), folder=folder))
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 999, 200, 0, 0))
    zsh = start("zsh", "-i", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                env=environment(HOME=str(folder), ZDOTDIR=str(folder), TERM="dumb"))  # fmt: skip
    os.close(theirs)
    shown, asked = b"", 0
    with contextlib.suppress(OSError):  # its last holder is gone
        while piece := os.read(ours, 65536):
            shown += piece
            if b"READY>" in shown and not asked:
                asked = os.write(ours, f"{typed}\t\x15exit\n".encode())
    os.close(ours)
    assert finish(zsh).code == 0
    check(set((folder / "offered").read_text().split("\n")), typed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_flag_of_every_command_is_there(shell: str) -> None:
    text = run(REFIT, "--completion", shell).out
    offered = {
        f"-l {flag[2:]} " if shell == "fish" else flag for command in COMMANDS for flag in flags_of(REFIT, command)
    }
    assert len(offered) > 40 and not [flag for flag in offered if flag not in text]
    text = run(SERVER, "--completion", shell).out
    offered = {f"-l {flag[2:]} " if shell == "fish" else flag for flag in flags_of(SERVER)}
    assert len(offered) > 40 and not [flag for flag in offered if flag not in text]


def test_a_shell_that_is_not_known() -> None:
    for program in PROGRAMS.values():
        done = run(program, "--completion", "tcsh")
        assert done.code == 2 and "expected bash, zsh or fish, got 'tcsh'" in done.err, done


@pytest.mark.parametrize("program", PROGRAMS)
def test_manual_pages(program: str, folder: Path) -> None:
    page = folder / f"{program}.1"
    page.write_text(run(PROGRAMS[program], "--man-page").out)
    assert page.read_text().startswith(f".TH {program.upper().replace('-', chr(92) + '-')} 1 ")
    if not shutil.which("man") or not shutil.which("groff"):
        pytest.skip("no man and groff to read it: Debian's packages man-db and groff have them")
    done = run("man", "--warnings", "-E", "UTF-8", "-l", str(page), env=environment(MANWIDTH="500", LC_ALL="C.UTF-8"),
               stderr=subprocess.PIPE)  # fmt: skip
    assert done.code == 0 and not done.err, done
    read = re.sub(".\x08", "", done.out)
    commands = [(REFIT, command) for command in COMMANDS] if program == "refit" else [(SERVER,)]
    assert not [flag for command in commands for flag in flags_of(*command) if flag not in read]
    assert "SYNOPSIS" in read and "exit code" in read.lower()
