"""The results that a section gives to the report."""

from __future__ import annotations

from dataclasses import dataclass, field


def format_bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{format_number(count / size)} {unit}"
    return f"{count:.0f} B"


def format_number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass
class Check:
    """A ratio (or a size) and its target."""

    of: str
    value: float
    # ">=" or "<=", and the limit; empty: there is no target.
    relation: str = ""
    limit: float = 0
    unit: str = ""

    @property
    def met(self) -> bool | None:
        if not self.relation:
            return None
        return self.value >= self.limit if self.relation == ">=" else self.value <= self.limit


@dataclass
class Row:
    contender: str
    value: float | None = None
    unit: str = ""
    detail: str = ""
    # Ours, not what it is compared with.
    own: bool = False
    checks: list[Check] = field(default_factory=list)
    # What the value is the median of.
    samples: list[float] = field(default_factory=list)
    # Why there is no value.
    not_measured: str = ""


@dataclass
class Section:
    name: str
    title: str
    # Unit of the rows that are drawn.
    unit: str = "GB/s"
    rows: list[Row] = field(default_factory=list)
    # A program of ours that failed.
    failure: str = ""
