#!/usr/bin/env python3
"""Measures this project and what it is compared with; see README.md. deploy/bench.sh installs, builds and runs it."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from pathlib import Path

import machine
import report
from processes import NotMeasured, ProgramFailed
from refit import REPOSITORY, Setup
from results import Row, Section
from sections import SECTIONS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round: does everything run?")
    parser.add_argument("--only", default="", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="rounds that count, after one that warms up (default 5)")
    parser.add_argument("--layers", type=int, help="layers of the model instead of each section's own number")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "bench", help="where results are written")
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build" / "release", help="build folder")
    arguments = parser.parse_args()
    arguments.only = [name for name in arguments.only.split(",") if name]
    if unknown := [name for name in arguments.only if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def measure(name: str, setup: Setup) -> Section:
    """A section, whatever happens: the ones after it are measured all the same."""
    module = SECTIONS[name]
    section = Section(name, module.TITLE)
    try:
        module.measure(setup, section)
    except NotMeasured as reason:
        section.rows.append(Row(name, not_measured=str(reason)))
    except ProgramFailed as failure:
        section.failure = str(failure)
    except Exception:
        section.failure = traceback.format_exc()
    return section


def main() -> int:
    # So that what is running is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    arguments = parse_arguments()
    rounds = arguments.rounds or (1 if arguments.smoke else 5)
    setup = Setup(arguments.build / "bin", rounds, arguments.smoke, arguments.layers)
    described = machine.describe()
    options = {"smoke": arguments.smoke, "rounds": rounds, "layers": arguments.layers}
    print(", ".join(f"{key} {value}" for key, value in described.items()))

    arguments.out.mkdir(parents=True, exist_ok=True)
    sections = []
    for name in arguments.only or SECTIONS:
        sections.append(measure(name, setup))
        report.print_section(sections[-1], arguments.smoke)
        # After each, so that a run that is cut short leaves what it has.
        report.write_json(arguments.out / "bench.json", described, options, sections)
        report.write_markdown(arguments.out / "bench.md", described, options, sections)
    no_picture = report.draw_picture(arguments.out / "bench.png", described, sections)
    picture = f"no picture: {no_picture}" if no_picture else "bench.png"
    print(f"\nWritten to {arguments.out}: bench.json, bench.md, {picture}")
    failed = [section.name for section in sections if section.failure]
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
