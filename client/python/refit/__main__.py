"""The programs that a wheel brings: `refit`, `refit-server`, and `python -m refit`, which is `refit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def _become(program: str) -> NoReturn:
    path = Path(__file__).parent / "bin" / program
    if not path.exists():
        sys.exit(
            f"{program}: not in this installation of the Python package, which comes from a build tree: see bin/ there"
        )
    os.execv(path, [program, *sys.argv[1:]])


def refit() -> NoReturn:
    _become("refit")


def refit_server() -> NoReturn:
    _become("refit-server")


if __name__ == "__main__":
    refit()
