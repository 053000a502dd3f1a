"""Memory that is handed to us is looked at before it is read: each kind that would end in a signal, or in wrong values, is
an error that names the tensor. All kinds of one library are pushed by one process, which must end in good order."""

import ctypes
import mmap
import subprocess
import sys

import pytest

import refit
from conftest import f32

try:
    import torch
except ImportError:
    torch = None
try:
    import numpy
except ImportError:
    numpy = None

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
needs_numpy = pytest.mark.skipif(numpy is None, reason="NumPy is not installed")

# Pushes each kind alone, over the wire, through shared memory and in process; says what became of it.
PUSH_EACH = r"""
import itertools, sys, refit
numbers = itertools.count(1)

def push_each(kinds):
    with refit.serve(memory="64MiB") as service:
        publishers = [refit.Publisher(service.address, adapter="identity", transport=t) for t in ("wire", "auto")]
        for kind, make in kinds.items():
            made = make()
            if made is None:
                continue
            for version in [publishers[0].version, publishers[1].version,
                            lambda number: service.version(number, adapter="identity")]:
                print(kind, "|", attempt(version, made), flush=True)

def attempt(version, made):
    try:
        with version(next(numbers)) as v:
            v.push({"a": b"first", "w": made})
    except refit.RefitError as error:
        return f"{type(error).__name__} {error.tensor} {error.message}"
    return "pushed"
"""


def outcomes(kinds):
    """{kind: {outcome}} of a script that defines KINDS, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PUSH_EACH + kinds + "\npush_each(KINDS)"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    found = {}
    for line in done.stdout.splitlines():
        kind, outcome = line.split(" | ", 1)
        found.setdefault(kind, set()).add(outcome)
    return found


TORCH = r"""
import numpy, torch
from torch.nn.parameter import UninitializedParameter

def untyped(tensor):
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage().untyped()

def resized(bytes, view=lambda t: t):
    tensor = torch.ones(1 << 20)
    seen = view(tensor)
    untyped(tensor).resize_(bytes)
    return seen

class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner, **options):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, **options)
    def __init__(self, inner, **options):
        self.inner = inner
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if "detach" in str(func):  # as torch.nn.Parameter wants
            return cls(args[0].inner)
        raise RuntimeError("the subclass was asked for " + str(func))

class Meddling(torch.Tensor):
    "Has memory, and its own idea of everything."
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("the subclass was asked for " + str(func))

def fake():
    from torch._subclasses import FakeTensorMode
    return FakeTensorMode().from_tensor(torch.ones(8))

def under_vmap():
    if not hasattr(torch, "func"):
        return None
    kept = []
    torch.func.vmap(lambda x: kept.append(x) or x)(torch.ones(2, 3))
    return kept[0]

def under_grad():
    if not hasattr(torch, "func"):
        return None
    kept = []
    torch.func.grad(lambda x: kept.append(x) or x.sum())(torch.ones(3))
    return kept[0]

def nested():
    make = getattr(torch, "nested_tensor", None) or torch.nested.nested_tensor
    return make([torch.ones(2), torch.ones(3)])

def jagged():
    if not hasattr(torch, "jagged"):
        return None
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)

def taken_away():
    tensor = torch.ones(1 << 18)
    view = tensor[1 << 17:]
    tensor.resize_(4)
    untyped(tensor).resize_(16)
    return view

def truncated_file(shared):
    import tempfile
    path = tempfile.mkstemp()[1]
    with open(path, "r+b") as file:
        file.truncate(4 << 20)
        tensor = torch.from_file(path, shared=shared, size=1 << 20)
        file.truncate(8192)
    return tensor

def zombie():
    "resize_() that failed, and changed the shape all the same."
    tensor = torch.tensor([], dtype=torch.int32)
    tensor.set_(untyped(torch.from_numpy(numpy.array([], dtype="int32")).view(0)))
    try:
        tensor.resize_((5, 5, 5))
    except RuntimeError:
        pass
    return tensor if tensor.numel() else None

def loaded(truncated):
    if not hasattr(torch.Tensor, "untyped_storage"):
        return None  # torch 1 maps no files
    import os, tempfile
    path = tempfile.mkstemp()[1]
    torch.save({"w": torch.ones(1 << 20)}, path)
    tensor = torch.load(path, mmap=True, weights_only=True)["w"]
    os.truncate(path, 70000 if truncated else os.path.getsize(path))
    return tensor

KINDS = {
    "zombie": zombie,
    "a checkpoint's file, truncated": lambda: loaded(True),
    "freed": lambda: resized(0),
    "shrunk": lambda: resized(8),
    "half": lambda: resized(1 << 21),
    "freed, a view": lambda: resized(0, lambda t: t[7:9]),
    "shrunk, a transposed view": lambda: resized(8, lambda t: t.view(1024, 1024).t()),
    "shrunk, its last element": lambda: resized((1 << 22) - 4, lambda t: t[-1]),
    "shrunk, expanded": lambda: resized(8, lambda t: t[100:101].expand(5)),
    "shrunk, a parameter": lambda: resized(8, torch.nn.Parameter),
    "taken away from a view": taken_away,
    "wrapper": lambda: Wrapper(torch.ones(1 << 20)),
    "wrapper with strides": lambda: Wrapper(torch.ones(4, 4), strides=(1, 4)),
    "parameter of a wrapper": lambda: torch.nn.Parameter(Wrapper(torch.ones(4)), requires_grad=False),
    "fake": fake,
    "functional": lambda: torch._to_functional_tensor(torch.ones(3)),
    "zero": lambda: torch._efficientzerotensor(4),
    "vmap": under_vmap,
    "grad": under_grad,
    "meta": lambda: torch.ones(4, device="meta"),
    "uninitialised": UninitializedParameter,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "mkldnn": lambda: torch.ones(4, 4).to_mkldnn(),
    "nested": nested,
    "jagged": jagged,
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    "truncated file": lambda: truncated_file(True),
    "truncated file, transposed": lambda: truncated_file(True).view(1024, 1024).t(),
}
GOOD = {
    "good: a checkpoint's file": lambda: loaded(False),
    "good: meddling": lambda: torch.ones(4).as_subclass(Meddling),
    "good: conjugate": lambda: torch.ones(4, dtype=torch.complex64).conj(),
    "good: parameter": lambda: torch.nn.Parameter(torch.ones(4)),
    "good: empty and freed": lambda: resized(0, lambda t: t[:0]),
    "good: shrunk to what is used": lambda: resized(40, lambda t: t[:10]),
    "good: overlapping": lambda: torch.ones(1).expand(4, 5),
    "good: from a file": lambda: torch.from_file("/proc/self/exe", shared=False, size=64),
}
KINDS.update(GOOD)
"""


@needs_numpy
@needs_torch
def test_torch_memory_that_is_not_there():
    found = outcomes(TORCH)
    assert len(found) >= 30
    for kind, outcome in found.items():
        if kind.startswith("good"):
            assert outcome == {"pushed"}, (kind, outcome)
        else:
            assert all(one.startswith("InvalidArgument w tensor w") for one in outcome), (kind, outcome)


@needs_torch
def test_what_it_claims_and_what_it_has_is_said(service):
    tensor = torch.ones(4, 6)[1:]
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage().untyped()
    storage.resize_(50)
    with pytest.raises(refit.InvalidArgument) as error:
        refit.convert_single_tensor_to_hf("model.layers.0.w", tensor)
    for said in ("model.layers.0.w", "float32", "[3, 6]", "96 bytes", "50", "torch.Tensor"):
        assert said in str(error.value)


ARRAYS = r"""
import ctypes, mmap, tempfile
import numpy
from numpy.lib.stride_tricks import as_strided

class Interface:
    def __init__(self, **fields):
        array = fields.pop("array", numpy.ones(4, "float32"))
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.__array_interface__ = {**array.__array_interface__, **fields}

def shrunk_base():
    array = numpy.ones(1 << 20)
    view = array[1 << 19:]
    array.resize(8, refcheck=False)
    return view

def truncated(count=1 << 20, part=slice(None)):
    path = tempfile.mkstemp()[1]
    array = numpy.memmap(path, "uint8", "w+", shape=(count,))
    array[:] = 1
    open(path, "r+b").truncate(4096)
    return array[part]

def truncated_mmap():
    file = tempfile.TemporaryFile()
    file.truncate(1 << 20)
    mapped = mmap.mmap(file.fileno(), 1 << 20)
    file.truncate(0)
    return mapped

def unmapped():
    memory = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memory = None
    import gc; gc.collect()
    return address

def protected():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    return libc.mmap(None, 1 << 20, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)

KINDS = {
    "objects": lambda: numpy.array([1, "a", None], dtype=object),
    "structured": lambda: numpy.zeros(3, dtype=[("a", "f4"), ("b", "i4")]),
    "strings": lambda: numpy.array(["a", "b"]),
    "dates": lambda: numpy.zeros(2, dtype="M8[s]"),
    "big-endian": lambda: numpy.ones(3, dtype=">f4"),
    "masked": lambda: numpy.ma.array([1.0, 2.0], mask=[0, 1]),
    "shrunk base": shrunk_base,
    "strides beyond its base": lambda: as_strided(numpy.ones(4), (1 << 20,), (8,)),
    "transposed beyond its base": lambda: as_strided(numpy.ones(4), (1 << 10, 1 << 10), (8, 8192)),
    "null address": lambda: Interface(data=(0, False)),
    "no address": lambda: Interface(data=b"bytes"),
    "elements of another size": lambda: Interface(typestr="<f8"),
    "nothing mapped": lambda: Interface(data=(unmapped(), False)),
    "protected": lambda: Interface(data=(protected(), False)),
    "beyond all addresses": lambda: Interface(data=((1 << 64) - 8, False)),
    "negative shape": lambda: Interface(shape=(-4,)),
    "huge shape": lambda: Interface(shape=(1 << 40, 1 << 40)),
    "truncated memmap": truncated,
    "truncated memmap, small": lambda: truncated(part=slice(8192, 8200)),
    "truncated memmap, strided": lambda: truncated(part=slice(None, None, 3)),
    "truncated mmap": truncated_mmap,
    "ctypes at nothing": lambda: (ctypes.c_float * 64).from_address(unmapped()),
    "good: nothing is masked": lambda: numpy.ma.array([1.0, 2.0]),
    "good: backwards": lambda: numpy.ones((4, 3))[::-1, ::-1],
    "good: broadcast": lambda: numpy.broadcast_to(numpy.ones(3), (2, 3)),
    "good: begin of a truncated memmap": lambda: truncated(part=slice(0, 4096)),
    "good: an interface": Interface,
    "good: ctypes": lambda: (ctypes.c_float * 64)(),
    "good: its rest was shrunk": lambda: shrunk_base().base[:8],
}
"""


@needs_numpy
def test_array_memory_that_is_not_there():
    found = outcomes(ARRAYS)
    assert len(found) == ARRAYS.count("lambda:") + 4
    for kind, outcome in found.items():
        if kind.startswith("good"):
            assert outcome == {"pushed"}, (kind, outcome)
        else:
            assert all(one.startswith("InvalidArgument w tensor w") for one in outcome), (kind, outcome)


class Exchanged:
    """DLPack's structures, made by hand: a capsule of any content."""

    class Tensor(ctypes.Structure):
        _fields_ = [
            ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
            ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
            ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
            ("byte_offset", ctypes.c_uint64),
        ]  # fmt: skip

    def __init__(
        self,
        device=1,
        shape=(2, 3),
        strides=None,
        null=False,
        offset=0,
        version=None,
        flags=0,
        ndim=None,
        dtype=(2, 32, 1),
    ):
        self.values = (ctypes.c_float * 16)(*range(16))
        self._shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self._strides = (ctypes.c_int64 * max(len(shape), 1))(*strides) if strides else None
        data = None if null else ctypes.addressof(self.values)
        tensor = self.Tensor(
            data, device, 0, len(shape) if ndim is None else ndim, *dtype, self._shape, self._strides, offset
        )
        fields = [("tensor", self.Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]
        values = (tensor, None, None)
        if version is not None:
            fields = [
                ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
                ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", self.Tensor),
            ]  # fmt: skip
            values = (version, 0, None, None, flags, tensor)
        self._managed = type("Managed", (ctypes.Structure,), {"_fields_": fields})(*values)
        self._name = b"dltensor" if version is None else b"dltensor_versioned"
        self.device = device

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self._managed), self._name, None)


@pytest.mark.parametrize(
    "said, options",
    [
        ("device type 2", dict(device=2)),
        ("null", dict(null=True)),
        ("null", dict(null=True, offset=16)),
        ("row-major", dict(strides=(1, 2))),
        ("dimensions", dict(ndim=-1)),
        ("version 2", dict(version=2)),
        ("lanes", dict(dtype=(2, 32, 4))),
        ("-2", dict(shape=(-2, 3))),
        ("1099511627776", dict(shape=(1 << 40, 1 << 40))),
    ],
)
def test_dlpack_that_cannot_be_read(service, said, options):
    with pytest.raises(refit.InvalidArgument, match=said) as error:
        with service.version(1, adapter="identity") as version:
            version.push({"w": Exchanged(**options)})
    assert error.value.tensor == "w"


@pytest.mark.parametrize(
    "options", [dict(offset=8), dict(version=1, offset=8), dict(device=3, offset=8), dict(version=1, flags=1, offset=8)]
)
def test_dlpack_of_any_version_with_an_offset(service, options):
    with service.version(1, adapter="identity") as version:
        version.push({"w": Exchanged(**options)})
    (tensor,) = refit.Subscriber(service.address).pull(copy=True).tensors
    assert bytes(memoryview(tensor.memory)) == f32(2, 3, 4, 5, 6, 7).tobytes()


def test_dlpack_elsewhere_is_not_even_exported(service):
    class Elsewhere:
        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **_):
            raise AssertionError("it was exported")

    with pytest.raises(refit.InvalidArgument, match="tensor w: it is on DLPack device type 2"):
        with service.version(1, adapter="identity") as version:
            version.push({"w": Elsewhere()})


@needs_torch
def test_a_capsule_that_was_used_is_none(service):
    class Used:
        def __init__(self):
            self.capsule = torch.utils.dlpack.to_dlpack(torch.ones(3))
            self.user = torch.utils.dlpack.from_dlpack(self.capsule)

        def __dlpack__(self):
            return self.capsule

    with pytest.raises(refit.InvalidArgument, match="unused") as error:
        with service.version(1, adapter="identity") as version:
            version.push({"w": Used()})
    assert error.value.tensor == "w"


@needs_torch
def test_what_an_exporter_forgets_lives_as_long_as_it_is_read(service):
    class Forgetful:
        def __init__(self):
            self.tensor = torch.full((1 << 18,), 5.0)

        def __dlpack__(self):
            tensor, self.tensor = self.tensor, None
            return torch.utils.dlpack.to_dlpack(tensor)

    publisher = refit.Publisher(service.address, adapter="identity", transport="wire")
    with publisher.version(1, declare={"w": ("F32", (1 << 18,))}) as version:
        version.push([("w", Forgetful())])
    assert set(refit.Subscriber(service.address).pull()["w"].tolist()) == {5.0}


@pytest.mark.skipif(not hasattr(torch, "set_default_device"), reason="torch is not installed, or has no default device")
def test_the_default_device_is_not_ours(service):
    sent = torch.arange(24.0).view(4, 6).t()
    with torch.device("meta"), service.version(1, adapter="identity") as version:
        version.push({"w": sent, "empty": sent[:0]})
    with torch.device("meta"):
        pulled = refit.Subscriber(service.address).pull(copy=True).state_dict()
    assert torch.equal(pulled["w"], sent) and pulled["empty"].device.type == "cpu"


def test_what_cannot_be_written_is_no_target(service):
    with service.version(1, adapter="identity") as version:
        version.push({"w": f32(*range(6))})
    read_only = mmap.mmap(-1, 24, prot=mmap.PROT_READ)
    targets = [bytes(24), memoryview(read_only).cast("f"), Exchanged(version=1, flags=1)]
    if numpy is not None:
        array = numpy.zeros(6, "float32")
        array.flags.writeable = False
        targets += [array, numpy.zeros((6, 2), "float32")[:, 0]]
    for target in targets:
        with pytest.raises(refit.InvalidArgument) as error:
            refit.Subscriber(service.address).pull(out={"w": target})
        assert error.value.tensor == "w"


@needs_torch
def test_a_torch_target_on_read_only_memory_is_refused(service):
    with service.version(1, adapter="identity") as version:
        version.push({"w": f32(*range(6))})
    read_only = mmap.mmap(-1, 24, prot=mmap.PROT_READ)
    target = torch.frombuffer(read_only, dtype=torch.float32)  # torch knows no read-only tensors
    with pytest.raises(refit.InvalidArgument, match="read-only") as error:
        refit.Subscriber(service.address).pull(out={"w": target})
    assert error.value.tensor == "w"


@needs_torch
def test_what_is_not_final_is_waited_for(service):
    dist = pytest.importorskip("torch.distributed")
    collectives = pytest.importorskip("torch.distributed._functional_collectives")
    if not hasattr(collectives, "AsyncCollectiveTensor"):
        pytest.skip("this torch has no AsyncCollectiveTensor")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        promise = collectives.all_reduce(torch.full((1 << 18,), 3.0), "sum", dist.group.WORLD)
        assert isinstance(promise, collectives.AsyncCollectiveTensor)
        with service.version(1, adapter="identity") as version:
            version.push({"w": promise})
    finally:
        dist.destroy_process_group()
    assert set(refit.Subscriber(service.address).pull(copy=True)["w"].tolist()) == {3.0}


@pytest.mark.parametrize("value", [None, "BytesIO", b"", bytes(16)])
def test_extra_state_names_the_way_out(service, value):
    import io

    value = io.BytesIO(b"x") if value == "BytesIO" else value
    state = {"w": f32(1), "layer._extra_state": value}
    publisher = refit.Publisher(service.address, adapter="identity")
    for version in (
        publisher.version,
        lambda number, **options: service.version(number, adapter="identity", **options),
    ):
        with pytest.raises(refit.InvalidArgument, match="exclude_key_regex") as error:
            with version(1) as v:
                v.push(state)
        assert error.value.tensor == "layer._extra_state"
    with publisher.version(1, exclude_key_regex=r".*_extra_state.*") as v:
        v.push(state)
    assert [tensor.name for tensor in refit.Subscriber(service.address).pull().tensors] == ["w"]


def test_what_is_no_tensor_names_the_way_out(service):
    with pytest.raises(refit.InvalidArgument, match=r'exclude_key_regex=r"optimizer\\\.step"') as error:
        with service.version(1, adapter="identity") as version:
            version.push({"optimizer.step": [1, 2]})
    assert error.value.tensor == "optimizer.step"


@pytest.mark.parametrize(
    "tensors, said",
    [
        ({1: f32(1)}, "a tensor's name is text; got 1 (a int)"),
        ([f32(1)], "as pairs (name, tensor)"),
        (7, "as a mapping or as pairs (name, tensor); got a int"),
    ],
)
def test_what_is_no_tensors_by_name_is_refused(service, tensors, said):
    with pytest.raises(refit.InvalidArgument) as raised:
        with service.version(900, adapter="identity") as version:
            version.push(tensors)
    assert said in str(raised.value)


def test_a_capsule_that_is_none_is_refused(service):
    class Odd:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **_):
            return 7

    with pytest.raises(refit.InvalidArgument, match="tensor w: its __dlpack__.. gave a int, no capsule"):
        with service.version(901, adapter="identity") as version:
            version.push({"w": Odd()})
