"""A trainer casts before it sends: the values are torch's, and the version is the one of a push in process."""

import pytest

import refit

torch = pytest.importorskip("torch")

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LAYER = "model.language_model.layers.0."


def special(dtype):
    """Values at the borders of the smaller types, NaNs, infinities, zeros; then ordinary ones."""
    edges = [0.0, -0.0, 1e-45, -1e-40, 2.0**-25 * 1.0001, 6.1e-5, 65504, 65519, 65520, 65536, 3.4e38, 1e300]
    edges += [float("inf"), float("-inf"), float("nan"), 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-40]
    generator = torch.Generator().manual_seed(7)
    return torch.cat([torch.tensor(edges, dtype=torch.float64), torch.randn(90_000, generator=generator).double()]).to(
        dtype
    )


def state():
    generator = torch.Generator().manual_seed(3)
    tensors = {f"norm.{name}": special(dtype) for name, dtype in FLOATS.items()}
    tensors[LAYER + "moe.experts.down_projs"] = torch.randn(4, 60, 50, generator=generator)
    tensors["router.bias"] = torch.randn(8, generator=generator)
    tensors["step"] = torch.arange(5)
    tensors["quantized"] = torch.arange(16, dtype=torch.int8)
    return tensors


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8)


def pushed(publisher, number, **options):
    with publisher(number, **options) as version:
        version.push(state())
    return version.info


def pulled(service):
    return dict(refit.Subscriber(service.address).pull())


@pytest.mark.parametrize("target", FLOATS)
def test_the_values_are_torchs(service, transport, target):
    pushed(refit.Publisher(service.address, transport=transport, adapter="identity").version, 1, dtype=target)
    got = pulled(service)
    for name, tensor in state().items():
        wanted = tensor.to(FLOATS[target]) if tensor.dtype.is_floating_point else tensor
        assert got[name].dtype == wanted.dtype
        nan = wanted.isnan()
        assert torch.equal(got[name].isnan(), nan)
        assert torch.equal(bits(got[name][~nan]), bits(wanted[~nan])), name


@pytest.mark.parametrize("target", FLOATS)
def test_the_version_is_the_one_in_process(service, transport, target):
    options = {"dtype": target, "keep_dtype_regex": "router"}
    here = pushed(service.version, 1, **options)
    there = pushed(refit.Publisher(service.address, transport=transport).version, 2, **options)
    assert there.manifest_digest == here.manifest_digest


def test_a_thread_without_subnormals_sends_them_all_the_same(service, transport):
    values = torch.tensor([1, 0x007FFFFF, 0x00010000, -0x7FFF0000], dtype=torch.int32).view(torch.float32)
    wanted = bits(values.to(torch.bfloat16))
    publishers = [refit.Publisher(service.address, transport=transport).version, service.version]
    assert torch.set_flush_denormal(True)
    try:
        for number, publisher in enumerate(publishers, start=1):
            with publisher(number, dtype="bf16") as version:
                version.push({"w": values})
    finally:
        torch.set_flush_denormal(False)
    for number in (1, 2):
        assert torch.equal(bits(dict(refit.Subscriber(service.address).pull(number))["w"]), wanted)


def test_what_is_pushed_may_change_as_soon_as_it_was_cast(service, transport):
    tensor = torch.full((300_000,), 1.5)
    with refit.Publisher(service.address, transport=transport).version(
        1, dtype="bf16", declare={"w": tensor}
    ) as version:
        version.push({"w": tensor})
        tensor.fill_(-1)
    assert torch.equal(pulled(service)["w"], torch.full((300_000,), 1.5, dtype=torch.bfloat16))
