"""--help fits the terminal, and the 80 columns of a pipe."""
from __future__ import annotations

import pytest
from conftest import BIN, COMMANDS, REFIT, SERVER, on_terminal, run, shell

HELP = [(REFIT, "--help"), *[(REFIT, command, "--help") for command in COMMANDS], (SERVER, "--help")]


@pytest.mark.parametrize("command", HELP, ids=lambda command: " ".join(command)[len(str(BIN)) + 1:])
@pytest.mark.parametrize("columns", [0, 200, 80, 60])
def test_it_fits(command: tuple[str, ...], columns: int) -> None:
    done = run(*command) if columns == 0 else on_terminal(*command, columns=columns)
    assert done.code == 0 and done.err == ""
    too_wide = [line for line in done.out.splitlines() if len(line) > min(columns or 80, 80)]
    assert not too_wide
    assert "\x1b" not in done.out


@pytest.mark.parametrize("columns", [1, 20, 40])
def test_on_a_terminal_that_is_too_narrow_it_is_there_all_the_same(columns: int) -> None:
    """curl#4818, aws-cdk#8675."""
    done = on_terminal(REFIT, "push", "--help", columns=columns)
    assert done.code == 0 and "--exclude-key-regex" in done.out and "Examples:" in done.out


def test_examples_are_commands_on_a_narrow_terminal_too() -> None:
    help_text = on_terminal(REFIT, "convert", "--help", columns=60).out
    examples = help_text.split("Examples:\n")[1].split("\n\n")[0]
    # As pasted: what they name is not there, which is all that may be wrong with them.
    pasted = shell("refit() { $REFIT \"$@\"; }\n" + examples, cwd="/")
    assert "usage" not in pasted.err and pasted.err.count("refit: convert: ") == 4, pasted
