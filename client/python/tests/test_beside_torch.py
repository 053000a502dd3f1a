"""The native half beside any torch, or none: it brings no LibTorch, and shares no symbols."""

import pathlib
import subprocess
import sys

import pytest

import refit
from refit import _refit

NATIVE = pathlib.Path(_refit.__file__)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_not_linked_to_libtorch():
    needed = subprocess.run(["ldd", NATIVE], capture_output=True, text=True, check=True).stdout
    assert "grpc" in needed
    assert "libtorch" not in needed and "libc10" not in needed


def test_it_exports_nothing_but_its_entry():
    symbols = subprocess.run(["nm", "-D", "--defined-only", NATIVE], capture_output=True, text=True, check=True).stdout
    strong = [line.split()[-1] for line in symbols.splitlines() if line.split()[-2] in "TDB"]
    assert strong == ["PyInit__refit"]


def test_it_needs_neither_torch_nor_numpy():
    code = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
import refit
with refit.serve() as service:
    with service.version(1) as version:
        version.push({"w": memoryview(bytes(8)).cast("f")})
    (tensor,) = refit.Subscriber(service.address).pull().tensors
    print(tensor, bytes(memoryview(tensor.memory)))
"""
    assert "w F32 [2]" in run(code)


@pytest.mark.parametrize("first, second", [("refit", "torch"), ("torch", "refit")])
def test_in_one_process_in_any_order(first, second):
    pytest.importorskip("torch")
    code = f"""
import {first}
import {second}
import threading

def train():
    x = torch.randn(64, 64, requires_grad=True)
    for _ in range(50):
        (x @ x).sum().backward()

with refit.serve() as service:
    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 20):
        with service.version(number, adapter="identity") as version:
            version.push({{"w": torch.full((1000,), float(number)).bfloat16()}})
        (name, tensor), = refit.Subscriber(service.address).pull()
        assert (tensor == number).all()
    for thread in threads:
        thread.join()
with open("/proc/self/maps") as maps:
    libraries = {{line.split()[-1] for line in maps if "libtorch_cpu" in line}}
print(len(libraries))
"""
    assert run(code).split() == ["1"]


def test_types_are_shipped():
    assert (pathlib.Path(refit.__file__).parent / "py.typed").exists()
