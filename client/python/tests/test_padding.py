"""A family's outputs with zeros behind, over the wire and in process, whole and in ranks' shards."""

import pytest

import refit
from conftest import f32

FAMILY = """
name = '{name}'
[[rule]]
suffix = 'embed_tokens.weight'
to = 'embed_tokens.weight'
pad = {{ dim = 0, multiple = 4 }}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Known in this process, and so to the services in it."""
    name = "padded_vocabulary"
    path = tmp_path_factory.mktemp("families") / f"{name}.toml"
    path.write_text(FAMILY.format(name=name))
    refit.add_adapter_file(path)
    return name


def opened(service, way, family):
    if way == "wire":
        return refit.Publisher(service.address, adapter=family).version(1)
    return service.version(1, adapter=family)


@pytest.mark.parametrize("way", ["wire", "in process"])
def test_the_vocabulary_grows_to_a_multiple(service, family, way):
    with opened(service, way, family) as version:
        version.push({"model.embed_tokens.weight": f32(1, 2, 3, 4, 5), "model.norm.weight": f32(6)})
    pulled = {tensor.name: tensor.tolist() for tensor in refit.Subscriber(service.address).pull().tensors}
    assert pulled == {"model.embed_tokens.weight": [1, 2, 3, 4, 5, 0, 0, 0], "model.norm.weight": [6]}


def test_a_part_of_it_is_padding_alone(service, family):
    with opened(service, "in process", family) as version:
        version.push({"model.embed_tokens.weight": f32(1, 2, 3, 4, 5)})
    rules = [refit.Rule(dimension=0, part=3, parts=4, pattern="embed_tokens")]
    (part,) = refit.Subscriber(service.address).pull(rules=rules).tensors
    assert part.tolist() == [0, 0]
