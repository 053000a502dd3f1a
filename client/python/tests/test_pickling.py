"""What goes to another process, and what says why it cannot: pickled as multiprocessing does it, and Ray."""

import copy
import pickle

import pytest

import refit
from conftest import f32


def there_and_back(value):
    return pickle.loads(pickle.dumps(value))


def test_rules_and_boxes_go_to_another_process():
    rules = [
        refit.Rule(dimension=0, part=1, parts=8, scope="experts"),
        refit.Rule(dimension=1, part=0, parts=2, pattern=r"q_proj\.weight$", split="ceil"),
        refit.Rule(dimension=2, part=1, parts=2, scope="ordinary"),
    ]
    assert there_and_back(rules) == rules == copy.deepcopy(rules)
    assert rules[0] != rules[1] and rules[0] != refit.Rule(dimension=0, part=1, parts=8)
    box = refit.Box(offsets=[4, 0], sizes=[4, 16])
    assert there_and_back(box) == box == copy.copy(box)


def test_a_version_s_description_goes_to_another_process(service):
    with service.version(1, adapter="identity") as version:
        version.push({"w": f32(1)})
    assert there_and_back(version.info) == version.info


def test_errors_go_to_another_process(service):
    with pytest.raises(refit.NotFound) as caught:
        refit.Subscriber(service.address).pull(7)
    error = there_and_back(caught.value)
    assert type(error) is refit.NotFound and str(error) == str(caught.value)
    torn = refit.DataLoss("tensor w: wrong bytes", version=3)
    torn.torn = True
    error = there_and_back(torn)
    assert (error.tensor, error.version, error.torn, error.code) == ("w", 3, True, "DATA_LOSS")


def test_what_belongs_to_this_process_says_so(service):
    publisher = refit.Publisher(service.address, adapter="identity")
    version = publisher.version(1)
    with version:
        version.push({"w": f32(1)})
    subscriber = refit.Subscriber(service.address)
    pulled = subscriber.pull()
    owned = {
        "refit.Publisher": (publisher, "its address"),
        "refit.Subscriber": (subscriber, "its address"),
        "refit.Worker": (refit.Worker(service.address, install=print), "its address"),
        "refit.Version": (version, "each open it themselves"),
        "refit.Service": (service, "pass on its address"),
        "refit.PulledVersion": (pulled, "pass on copies"),
        "refit.Tensor": (pulled.tensors[0], "pass on a copy"),
        "refit.aio.Publisher": (refit.aio.Publisher(service.address), "its address"),
        "refit.aio.Subscriber": (refit.aio.Subscriber(service.address), "its address"),
        "refit.aio.Version": (refit.aio.Publisher(service.address).version(2), "each open it themselves"),
    }
    for name, (value, way_out) in owned.items():
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"^{name} cannot be pickled or copied: .*{way_out}"):
                attempt(value)
