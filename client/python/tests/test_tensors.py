"""Tensors of any library, there and back, bit for bit."""

import array

import pytest

import refit
from conftest import f32

torch = None
numpy = None
try:
    import numpy
except ImportError:
    pass
try:
    import torch
except ImportError:
    pass

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")
needs_numpy = pytest.mark.skipif(numpy is None, reason="NumPy is not installed")


def round_trip(service, transport, tensors, **options):
    with refit.Publisher(service.address, adapter="identity", transport=transport).version(1, **options) as version:
        version.push(tensors)
    return refit.Subscriber(service.address, transport=transport).pull()


TORCH_DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "uint16",
    "uint32",
    "uint64",
    "float8_e8m0fnu",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "complex64",
    "float4_e2m1fn_x2",
]


@needs_torch
@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_torch(service, transport, name):
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"torch {torch.__version__} has no {name}")
    raw = torch.randint(0, 2 if name == "bool" else 256, (3 * 5 * 8,), dtype=torch.uint8)
    sent = raw.view(dtype).view(3, -1)
    version = round_trip(service, transport, {"w": sent, "scalar": sent[0, 0], "empty": sent[:0]})
    for key, expected in {"w": sent, "scalar": sent[0, 0], "empty": sent[:0]}.items():
        assert version[key].dtype == dtype and version[key].shape == expected.shape
        assert torch.equal(
            version[key].contiguous().view(-1).view(torch.uint8), expected.contiguous().view(-1).view(torch.uint8)
        )


@needs_torch
def test_torch_of_any_strides_and_with_gradients(service, transport):
    base = torch.randn(6, 8, requires_grad=True)
    negated = torch.view_as_complex(base.detach().reshape(24, 2)).conj().imag
    tensors = {"t": base.t(), "s": base[:, ::2], "p": torch.nn.Parameter(base.detach()), "n": negated}
    version = round_trip(service, transport, tensors)
    assert negated.is_neg() and torch.equal(version["n"], negated)
    assert torch.equal(version["t"], base.detach().t()) and torch.equal(version["s"], base.detach()[:, ::2])
    assert torch.equal(version["p"], base.detach())


@needs_torch
def test_what_is_pulled_may_be_written(service, transport):
    version = round_trip(service, transport, {"w": torch.zeros(1 << 20)})
    version["w"].add_(1)
    assert refit.Subscriber(service.address, transport=transport).pull()["w"].sum() == 0


@needs_numpy
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_numpy(service, transport, name):
    sent = numpy.arange(30).reshape(5, 6).astype(name)
    version = round_trip(service, transport, {"w": sent, "t": sent.T, "scalar": numpy.array(1, dtype=name)})
    got = {tensor.name: tensor.numpy() for tensor in version.tensors}
    assert got["w"].dtype == sent.dtype
    assert numpy.array_equal(got["w"], sent) and numpy.array_equal(got["t"], sent.T) and got["scalar"] == 1


@needs_numpy
def test_dlpack(service):
    class Only:
        """Nothing but DLPack."""

        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self, **_):
            return self.tensor.__dlpack__()

    sent = numpy.arange(12, dtype="float32").reshape(3, 4)
    version = round_trip(service, "wire", {"w": Only(sent)})
    assert numpy.array_equal(numpy.from_dlpack(version.tensors[0]), sent)
    with pytest.raises(refit.InvalidArgument, match="tensor t: not row-major"):
        round_trip(service, "wire", {"t": Only(sent.T)})


def test_buffers_without_any_array_library(service, transport):
    version = round_trip(service, transport, {"w": f32(1, 2, 3), "i": array.array("q", [7, -7]), "b": b"raw"})
    (w, i, b) = version.tensors
    assert (w.tolist(), i.tolist(), b.tolist()) == ([1, 2, 3], [7, -7], list(b"raw"))
    assert (w.dtype, i.dtype, b.dtype) == ("F32", "I64", "U8")
    assert bytes(memoryview(w.memory)) == f32(1, 2, 3).tobytes() and bytes(memoryview(b.memory)) == b"raw"


@needs_numpy
@pytest.mark.parametrize("name", ["uint16", "uint32", "uint64", "complex64"])
def test_numpy_of_other_types(service, transport, name):
    sent = numpy.frombuffer(bytes(range(48)), dtype=name).reshape(2, -1)
    (got,) = round_trip(service, transport, {"w": sent}).tensors
    assert got.numpy().dtype == sent.dtype and got.numpy().tobytes() == sent.tobytes()


@needs_torch
@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float8_e4m3fnuz", "float4_e2m1fn_x2", "uint16", "complex64"])
def test_torch_views_of_other_types_keep_every_bit_whatever_the_cast(service, transport, name):
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"torch {torch.__version__} has no {name}")
    sent = torch.randint(0, 256, (4, 8 * 6), dtype=torch.uint8).view(dtype)
    views = {"transposed": sent.t(), "columns": sent[:, 1:3]}
    if name == "complex64":
        views["conjugate"] = sent.conj().t()
    version = round_trip(service, transport, views, dtype="bf16")
    for tensor in version.tensors:
        expected = views[tensor.name].resolve_conj().contiguous()
        assert bytes(memoryview(tensor.memory)) == bytes(expected.view(-1).view(torch.uint8).tolist())
        assert tensor.shape == tuple(expected.shape)


@needs_torch
def test_a_worker_takes_columns_of_packed_values(service, transport):
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip(f"torch {torch.__version__} has no float4_e2m1fn_x2")
    sent = torch.randint(0, 256, (4, 6), dtype=torch.uint8)
    with refit.Publisher(service.address, adapter="identity", transport=transport).version(1) as version:
        version.push({"w": sent.view(torch.float4_e2m1fn_x2)})
    rules = [refit.Rule(dimension=1, part=1, parts=2)]
    (part,) = refit.Subscriber(service.address, transport=transport).pull(1, rules=rules).tensors
    assert (part.shape, part.full_shape) == ((4, 3), (4, 6))
    assert bytes(memoryview(part.memory)) == bytes(sent[:, 3:].flatten().tolist())


def test_what_is_no_tensor_is_named(service):
    values = [None, "text", object(), array.array("u", "a")]
    if numpy is not None:
        values += [numpy.zeros(2, dtype=">f4"), numpy.zeros(2, dtype="complex128")]
    for value in values:
        with pytest.raises(refit.InvalidArgument) as error:
            round_trip(service, "wire", {"w": value})
        assert error.value.tensor == "w"


@needs_torch
def test_torch_of_a_dtype_that_does_not_travel_is_named(service):
    with pytest.raises(refit.InvalidArgument) as error:
        round_trip(service, "wire", {"w": torch.zeros(2, dtype=torch.complex128)})
    assert error.value.tensor == "w" and "complex128" in str(error.value)


@needs_torch
def test_torch_without_data_is_named_and_leaves_nothing_behind(service):
    with pytest.raises(refit.InvalidArgument) as error:
        round_trip(service, "wire", {"a": torch.zeros(4), "w": torch.zeros(2, device="meta")})
    assert error.value.tensor == "w" and "meta" in str(error.value)
    with pytest.raises(refit.NotFound):
        refit.Subscriber(service.address).pull()
    assert len(round_trip(service, "wire", {"w": torch.zeros(2)})) == 1


@needs_numpy
def test_numpy_takes_it_as_an_array(service, transport):
    sent = numpy.arange(6, dtype="float32").reshape(2, 3)
    version = round_trip(service, transport, {"w": sent, "empty": sent[:0], "scalar": sent[1, 2]})
    tensors = {tensor.name: tensor for tensor in version.tensors}
    for name, expected in {"w": sent, "empty": sent[:0], "scalar": sent[1, 2]}.items():
        array = numpy.asarray(tensors[name])
        assert array.dtype == sent.dtype and array.shape == expected.shape and numpy.array_equal(array, expected)
    assert numpy.shares_memory(numpy.asarray(tensors["w"]), tensors["w"].numpy())
    assert not numpy.shares_memory(numpy.array(tensors["w"]), tensors["w"].numpy())
    assert numpy.asarray(tensors["w"], dtype="float64").dtype == "float64"
    assert numpy.array_equal(tensors["w"].__array__(copy=True), sent)
    assert (numpy.stack([tensors["w"], sent]) == sent).all()
    with pytest.raises(ValueError, match="tensor w: F32 as float64 needs a copy"):
        tensors["w"].__array__("float64", copy=False)


@needs_numpy
def test_what_numpy_does_not_know_says_the_way_out(service, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)  # as if it were not installed
    with refit.Publisher(service.address, adapter="identity").version(1, dtype="bf16") as version:
        version.push({"w": f32(1, 2)})
    (tensor,) = refit.Subscriber(service.address).pull().tensors
    for attempt in (tensor.numpy, lambda: numpy.asarray(tensor)):
        with pytest.raises(refit.Unimplemented, match=r"no BF16; install ml_dtypes, or use torch\(\)") as error:
            attempt()
        assert error.value.tensor == "w"
    assert list(numpy.frombuffer(tensor.memory, "uint16")) == [0x3F80, 0x4000]


def test_dlpack_gives_what_is_asked_for_or_says_that_it_does_not(service):
    (tensor,) = round_trip(service, "wire", {"w": f32(1, 2)}).tensors
    assert tensor.__dlpack_device__() == (1, 0)
    capsule = tensor.__dlpack__(stream=None, max_version=(1, 0), dl_device=(1, 0), copy=False)
    assert type(capsule).__name__ == "PyCapsule"
    with pytest.raises(BufferError, match="tensor w: it is given as a view"):
        tensor.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="tensor w: it is in host memory"):
        tensor.__dlpack__(dl_device=(2, 0))
