"""Pulls leave the process's allocator as it is, unless one asks for more."""

import processes
import pytest

import refit

MIB = 1 << 20
VERSION_BYTES = 64 * MIB

PULL = """
import ctypes

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def is_mapped(size):
    before = libc.mallinfo2().hblks
    block = libc.malloc(size)
    mapped = libc.mallinfo2().hblks > before
    libc.free(block)
    return mapped

if sys.argv[3] == "tuned":
    refit.tune_allocator()
refit.Subscriber(sys.argv[1], transport="wire").pull(1, out={"w": bytearray(int(sys.argv[2]))})
# The unused end of the main heap, and whether a large block is the system's own.
print(libc.mallinfo2().keepcost, is_mapped(16 << 20))
"""


@pytest.mark.parametrize("tuned", [False, True])
def test_a_pull_leaves_the_allocator_as_it_is(tuned):
    with refit.serve(memory="256MiB") as service:
        with service.version(1) as version:
            version.push({"w": memoryview(bytes(VERSION_BYTES))})
        code, out, err = processes.run(PULL, service.address, VERSION_BYTES, "tuned" if tuned else "as it is")
    assert code == 0, err
    kept, mapped = out.split()
    assert mapped == str(not tuned)
    assert tuned or int(kept) < 4 * MIB
