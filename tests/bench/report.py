"""Writes tables for the terminal and the README, JSON, and the picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from results import Check, Row, Section, format_number

HEADINGS = ("contender", "measured", "detail", "ratio", "target", "")


def _measured(row: Row) -> str:
    return f"not measured: {row.not_measured}" if row.value is None else f"{format_number(row.value)} {row.unit}"


def _verdict(check: Check, smoke: bool) -> str:
    if check.met is None:
        return ""
    # A smoke run is too small for its figures to mean anything.
    return "smoke" if smoke else ("met" if check.met else "missed")


def _check_cells(check: Check, smoke: bool) -> tuple[str, str, str]:
    unit = check.unit and f" {check.unit}"
    number = format_number(check.value) if check.unit else f"{check.value:.2f} x"
    target = f"{check.relation} {check.limit:g}{unit}" if check.relation else ""
    return f"{number}{unit} {check.of}", target, _verdict(check, smoke)


def _lines(section: Section, smoke: bool) -> list[tuple[str, ...]]:
    """One row for each row of the section, and one for each further check."""
    lines = []
    for row in section.rows:
        cells = [_check_cells(check, smoke) for check in row.checks] or [("", "", "")]
        lines.append((row.contender, _measured(row), row.detail, *cells[0]))
        lines += [("", "", "", *more) for more in cells[1:]]
    return lines


def print_section(section: Section, smoke: bool) -> None:
    print(f"\n{section.title}")
    if section.failure:
        print(f"  FAILED: {section.failure}")
    lines = [HEADINGS, *_lines(section, smoke)]
    # A reason may be long; it makes no column wider.
    widths = [max(len(line[i]) for line in lines if not line[i].startswith("not measured")) for i in range(6)]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip(), flush=True)


def write_json(path: Path, machine: dict, options: dict, sections: list[Section]) -> None:
    content = {"machine": machine, "options": options, "sections": [asdict(section) for section in sections]}
    for section, out in zip(sections, content["sections"]):
        for row, row_out in zip(section.rows, out["rows"]):
            for check, check_out in zip(row.checks, row_out["checks"]):
                check_out["met"] = check.met
    path.write_text(json.dumps(content, indent=2) + "\n")


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_markdown(path: Path, machine: dict, options: dict, sections: list[Section]) -> None:
    text = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, Linux {machine['kernel']}, "
        f"gRPC {machine['gRPC']}; {machine['date']}, commit {machine['commit']}; "
        f"medians of {options['rounds']} interleaved rounds.",
    ]
    for section in sections:
        text += ["", f"### {section.title}"]
        if section.failure:
            text += ["", f"**failed**: {section.failure}"]
        if section.rows:
            text += ["", _markdown_row(HEADINGS), "|" + "---|" * len(HEADINGS)]
            text += [_markdown_row(line) for line in _lines(section, options["smoke"])]
    path.write_text("\n".join(text) + "\n")


def _draw(axes, section: Section) -> None:
    rows = [row for row in section.rows if row.value is not None and row.unit == section.unit][::-1]
    values = [row.value for row in rows]
    bars = axes.barh(
        [row.contender for row in rows], values, color=["#1f6fb4" if row.own else "#b8bcc2" for row in rows]
    )
    axes.bar_label(bars, [format_number(value) for value in values], padding=3, fontsize=8)
    axes.set_xlim(0, max(values) * 1.12)
    axes.set_title(f"{section.title} [{section.unit}]", loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_picture(path: Path, machine: dict, sections: list[Section]) -> str:
    """The reason if there is no picture; empty if there is one."""
    drawn = [
        section for section in sections if any(row.value and row.unit == section.unit for row in section.rows)
    ]
    if not drawn:
        return "nothing was measured"
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(section.rows) + 2 for section in drawn]
    figure, all_axes = pyplot.subplots(
        len(drawn),
        1,
        figsize=(10, 0.24 * sum(heights) + 1),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axes, section in zip(all_axes[:, 0], drawn):
        _draw(axes, section)
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, gRPC {machine['gRPC']}, {machine['date']}; "
        "blue: this project",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return ""
