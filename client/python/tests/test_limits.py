"""A service in the trainer's process leaves the process what it needs. In processes of their own, with real limits."""

import resource
import subprocess
import sys

import pytest

import refit

TRAINER = """
import os, resource, sys, warnings
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
import refit
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    service = refit.serve(memory="2GiB", retain=2)
    for number in range(1, 5):
        with service.version(number, adapter="identity") as version:
            version.push({f"w{i}": memoryview(bytes([number]) * int(sys.argv[3])) for i in range(int(sys.argv[4]))})
    service.version(5, adapter="identity", declare={"w": ("U8", (1,))}).abort("only to be told")
mine = [open("/dev/null") for _ in range(8)]
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(service.address)
print(" | ".join(str(warning.message) for warning in told), flush=True)
sys.stdin.read()
"""


class Trainer:
    def __init__(self, soft, hard, size, count):
        self.process = subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(soft), str(hard), str(size), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.limit = int(self.process.stdout.readline() or 0)
        self.address = self.process.stdout.readline().strip()
        self.told = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.mark.parametrize("hard", [4096, 256])
def test_versions_of_many_large_tensors_leave_descriptors(hard):
    with Trainer(256, hard, 2 << 20, 80) as trainer:
        assert trainer.limit == hard
        assert ("few file descriptors, 256" in trainer.told) == (hard == 256)
        assert "no longer shared" not in trainer.told
        version = refit.Subscriber(trainer.address, transport="shared_memory").pull()
        assert version.number == 4 and len(version) == 80
        assert all(bytes(memoryview(tensor.memory)[:1]) == b"\4" for tensor in version.tensors)


def test_where_descriptors_do_not_suffice_tensors_go_over_the_connection():
    with Trainer(40, 40, 65 << 20, 4) as trainer:  # a slab each
        assert "no longer shared" in trainer.told and "of at most 40 descriptors" in trainer.told
        assert "ulimit -n" in trainer.told
        for _ in range(3):
            version = refit.Subscriber(trainer.address).pull()
            assert version.number == 4 and len(version) == 4


def test_the_limit_is_never_lowered():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with refit.serve(memory="1MiB"):
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before[0]


def test_more_memory_than_there_is_is_told():
    with pytest.warns(RuntimeWarning, match="all that this process may use is"):
        refit.serve(memory="1000TiB").close()
