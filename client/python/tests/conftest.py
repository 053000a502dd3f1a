"""A service for each test, on loopback."""

import os
import pathlib

import pytest

import refit

DATA = pathlib.Path(__file__).parents[3] / "tests" / "data"


@pytest.fixture
def service():
    with refit.serve(memory="256MiB") as running:
        yield running


@pytest.fixture(params=["wire", "auto"])
def transport(request):
    return request.param


def f32(*values):
    """A row of numbers, without NumPy or torch."""
    return memoryview(b"".join(__import__("struct").pack("<f", value) for value in values)).cast("f")


def descriptors():
    return len(os.listdir("/proc/self/fd"))
