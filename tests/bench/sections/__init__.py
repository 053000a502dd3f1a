"""What is measured, in order. A section has a TITLE and measure(setup, section), which fills in the rows."""

from sections import (
    cast,
    delta,
    experts,
    fan_out,
    growth,
    in_process,
    kernels,
    pipeline,
    pull,
    python,
    ranks,
    relays,
    small,
    streams,
    whole,
)

SECTIONS = {
    "kernels": kernels,
    "delta": delta,
    "pull": pull,
    "pipeline": pipeline,
    "cast": cast,
    "fan-out": fan_out,
    "in-process": in_process,
    "whole": whole,
    "growth": growth,
    "small": small,
    "experts": experts,
    "ranks": ranks,
    "streams": streams,
    "relays": relays,
    "python": python,
}
