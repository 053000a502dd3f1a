"""A pull with a base: only what has changed comes, whatever the base is; what was pulled is right in any case."""

import array
import mmap
import threading
import time

import pytest

import refit
from processes import run
from stepped import ELEMENTS, Model

CHUNK = 64 << 10
# Chunks of "weight", "frozen" and "bias".
CHUNKS = (7, 4, 1)


@pytest.fixture
def service():
    with refit.serve(memory="256MiB", chunk_bytes=CHUNK) as running:
        yield running


@pytest.fixture
def model(service):
    made = Model(service)
    made.publish()
    return made


@pytest.fixture
def sub(service):
    return refit.Subscriber(service.address, transport="wire")


def test_only_what_has_changed_comes(model, sub):
    first = sub.pull()
    assert first.traffic == refit.Traffic(
        wire_bytes=model.nbytes,
        mapped_bytes=0,
        raw_chunks=sum(CHUNKS),
        delta_chunks=0,
        unchanged_chunks=0,
        changed_elements=0,
        base_version=None,
        base_refused="",
    )
    model.step()
    second = sub.pull(base=first)
    assert model.same(second)
    traffic = second.traffic
    assert (traffic.base_version, traffic.base_refused) == (1, "")
    assert (traffic.raw_chunks, traffic.delta_chunks, traffic.unchanged_chunks) == (0, CHUNKS[0] + CHUNKS[2], CHUNKS[1])
    assert traffic.changed_elements == ELEMENTS // 100 + 10
    assert traffic.wire_bytes < model.nbytes / 40
    assert second.info.bytes == model.nbytes


def test_versions_in_a_row_and_back_again(model, sub):
    version = sub.pull()
    for number in (2, 3, 4):
        model.step()
        version = sub.pull(base=version)
        assert model.same(version) and version.traffic.base_version == number - 1
    back = sub.pull(3, base=version)
    assert back.traffic.base_version == 4 and back.traffic.wire_bytes < model.nbytes / 40
    again = sub.pull(base=version)
    assert model.same(again) and again.traffic.wire_bytes == 0


def test_a_base_may_be_let_go_of_once_the_pull_is_done(model, sub):
    first = sub.pull()
    model.step()
    second = sub.pull(base=first)
    del first
    model.step()
    assert model.same(sub.pull(base=second))


def test_what_is_no_base_is_refused(model, sub):
    for wrong in ({"weight": b""}, 1, "latest", sub.pull().tensors):
        with pytest.raises(refit.InvalidArgument, match="base: expected what an earlier pull"):
            sub.pull(base=wrong)


def _of_another_model(model, sub):
    service_model = Model(model, model="other")
    service_model.tensors["bias"][0] = 7
    service_model.publish(number=1)
    return refit.Subscriber(model.address, model="other", transport="wire").pull()


def _of_another_service(model, sub):
    with refit.serve() as other:
        copy = Model(other)
        copy.tensors["weight"][5] += 1
        copy.publish(number=1)
        return refit.Subscriber(other.address).pull()


def _retired(model, sub):
    first = sub.pull()
    model.step()
    model.step()
    return first


@pytest.mark.parametrize(
    "earlier, why",
    [
        (_of_another_model, "version 1 of this service has other bytes"),
        (_of_another_service, "version 1 of this service has other bytes"),
        (_retired, "version 1 is retired here"),
        (lambda model, sub: sub.pull(names=["weight"]), "version 1 of this service has other bytes"),
        (
            lambda model, sub: sub.pull(rules=[refit.Rule(dimension=0, part=0, parts=2)]),
            "version 1 of this service has other bytes",
        ),
    ],
    ids=["another model", "another service", "retired", "a part", "parts"],
)
def test_the_wrong_base_is_no_base(model, sub, earlier, why):
    base = earlier(model, sub)
    if model.number == 1:
        model.step()
    version = sub.pull(base=base)
    assert model.same(version)
    assert why in version.traffic.base_refused and version.traffic.base_version is None
    assert version.traffic.wire_bytes == model.nbytes


def test_a_base_of_another_run_under_the_same_number(model, sub):
    former = sub.pull()
    model.tensors["frozen"][0] = 5.0
    model.publish(number=1, trainer_epoch=9)
    version = sub.pull(base=former)
    assert model.same(version) and version.info.trainer_epoch == 9
    assert version.traffic.base_version == 1 and version.traffic.delta_chunks == 1


def test_a_service_may_send_no_deltas():
    with refit.serve(deltas=False) as service:
        model = Model(service)
        model.publish()
        sub = refit.Subscriber(service.address, transport="wire")
        first = sub.pull()
        model.step()
        version = sub.pull(base=first)
        assert model.same(version) and "--no-deltas" in version.traffic.base_refused


def test_a_service_with_little_memory_for_deltas_sends_them_all_the_same():
    with refit.serve(delta_memory=1, chunk_bytes=CHUNK) as service:
        model = Model(service)
        model.publish()
        sub = refit.Subscriber(service.address, transport="wire")
        first = sub.pull()
        model.step()
        for _ in range(2):
            assert model.same(sub.pull(base=first))


@pytest.mark.parametrize("name, at", [("weight", CHUNK + 5), ("frozen", 0), ("bias", -1)])
def test_a_base_that_was_changed_is_noticed(model, sub, name, at):
    first = sub.pull()
    {tensor.name: memoryview(tensor.memory) for tensor in first.tensors}[name][at] ^= 1
    model.step()
    version = sub.pull(base=first)
    assert model.same(version)
    assert name in version.traffic.base_refused and version.traffic.raw_chunks > 0


def test_a_base_that_lacks_a_tensor_is_noticed(model, sub):
    first = sub.pull()
    del first.tensors[1]
    model.step()
    version = sub.pull(base=first)
    assert model.same(version) and "no such tensor" in version.traffic.base_refused


@pytest.mark.parametrize(
    "part",
    [
        {"names": ["weight"]},
        {"filter": "e"},
        {"names": ["weight"], "rules": [refit.Rule(dimension=0, part=1, parts=4)]},
        {"names": ["square"], "rules": [refit.Rule(dimension=1, part=1, parts=3)]},
        {"names": ["square", "bias"], "boxes": {"square": refit.Box([3, 50], [90, 100])}},
    ],
    ids=["names", "filter", "rows", "columns", "box"],
)
def test_parts_have_bases_of_their_own(service, sub, part):
    model = Model(service)
    values = bytearray(bytes(range(250)) * 250)
    model.tensors["square"] = memoryview(values).cast("B", (250, 250))
    model.publish()
    first = sub.pull(**part)
    values[::200] = bytes(len(values[::200]))
    model.step()
    second = sub.pull(base=first, **part)
    whole = sub.pull(**part)
    assert second.traffic.base_version == 1 and second.traffic.wire_bytes < whole.traffic.wire_bytes / 10
    assert [bytes(memoryview(t.memory)) for t in second.tensors] == [bytes(memoryview(t.memory)) for t in whole.tensors]


def targets(model):
    return {
        name: array.array(values.typecode, bytes(4 * len(values))[: len(values) * values.itemsize])
        for name, values in model.tensors.items()
    }


def test_into_memory_of_the_caller_s_own(model, sub):
    first = sub.pull(out=targets(model))
    model.step()
    out = targets(model)
    second = sub.pull(out=out, base=first)
    assert out == model.tensors and model.same(second)
    assert second.traffic.base_version == 1 and second.traffic.wire_bytes < model.nbytes / 40


def test_into_the_very_memory_of_the_base(model, sub):
    out = targets(model)
    version = sub.pull(out=out)
    for number in (2, 3):
        model.step()
        version = sub.pull(out=out, base=version)
        assert out == model.tensors
        assert (version.traffic.base_version, version.traffic.base_refused) == (number - 1, "")
        assert version.traffic.wire_bytes < model.nbytes / 40


def test_an_old_result_of_memory_that_has_the_next_version_by_now(model, sub):
    out = targets(model)
    first = sub.pull(out=out)
    model.step()
    sub.pull(out=out)
    version = sub.pull(base=first)
    assert model.same(version) and "weight" in version.traffic.base_refused


def test_memory_that_overlaps_the_base_s(model, sub):
    row = bytearray(len(model.tensors["weight"]) * 2 + 64)
    place = memoryview(row)
    only = {"names": ["weight"]}
    first = sub.pull(out={"weight": place[:-64].cast("H")}, **only)
    model.step()
    out = place[64:].cast("H")
    sub.pull(out={"weight": out}, base=first, **only)
    assert out.tobytes() == model.tensors["weight"].tobytes()


def test_memory_that_is_gone_is_no_base_and_no_end(model, sub, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(2 * ELEMENTS))
    with open(file, "r+b") as opened:
        out = {"weight": memoryview(mmap.mmap(opened.fileno(), 0)).cast("H")}
    first = sub.pull(out=out, names=["weight"])
    file.write_bytes(b"")
    model.step()
    version = sub.pull(base=first, names=["weight"])
    assert bytes(memoryview(version.tensors[0].memory)) == model.tensors["weight"].tobytes()
    assert "version 1 is not whole here: tensor weight" in version.traffic.base_refused


def test_deltas_come_while_the_version_is_pushed(model, sub):
    first = sub.pull()
    model.tensors["weight"][3] += 1
    declared = {"weight": ("U16", [ELEMENTS]), "frozen": ("F32", [50_000]), "bias": ("U16", [1000])}
    out = targets(model)
    pulled = []
    with refit.Publisher(model.address, adapter="identity") as publisher:
        with publisher.version(2, declare=declared) as version:
            thread = threading.Thread(target=lambda: pulled.append(sub.pull(2, base=first, out=out)))
            thread.start()
            version.push({"weight": model.tensors["weight"]})
            deadline = time.monotonic() + 30
            while out["weight"] != model.tensors["weight"]:  # before the rest is pushed
                assert time.monotonic() < deadline
                time.sleep(0.001)
            version.push({name: model.tensors[name] for name in ("frozen", "bias")})
    thread.join(30)
    assert model.same(pulled[0])
    assert pulled[0].traffic.base_version == 1 and pulled[0].traffic.changed_elements == 1


def test_on_the_service_s_host_nothing_moves(service):
    model = Model(service)
    model.tensors = {"w": memoryview(bytes(4 << 20))}
    model.publish()
    sub = refit.Subscriber(service.address, transport="shared_memory")
    first = sub.pull()
    assert first.traffic.mapped_bytes == first.traffic.wire_bytes == 4 << 20
    model.publish()
    mapped = sub.pull(base=first)
    assert "nothing is moved" in mapped.traffic.base_refused and mapped.traffic.mapped_bytes == 4 << 20
    over = refit.Subscriber(service.address, transport="wire").pull(base=first)
    assert (over.traffic.base_version, over.traffic.wire_bytes, over.traffic.mapped_bytes) == (1, 0, 0)


@pytest.mark.parametrize("typecode", "bBhHiIqQfd")
def test_every_width(service, sub, typecode):
    model = Model(service)
    model.tensors = {"w": array.array(typecode, range(100)) * 500, "b": array.array(typecode, [1])}
    model.publish()
    first = sub.pull()
    for at in range(0, 50_000, 777):
        model.tensors["w"][at] = 3
    model.publish()
    version = sub.pull(base=first)
    assert model.same(version) and version.traffic.wire_bytes < model.nbytes / 20


def test_names_that_only_one_of_the_versions_has(service, sub):
    model = Model(service)
    model.publish()
    first = sub.pull()
    del model.tensors["frozen"]
    model.tensors["new"] = array.array("d", range(100))
    model.tensors["bias"] = array.array("f", range(500))  # as many bytes as before
    model.step()
    version = sub.pull(base=first)
    assert model.same(version)
    assert version.traffic.base_version == 1 and version.traffic.raw_chunks == 2


# Base after base: memory for two versions, and for none of the former ones. In a process of its own, for it is measured.
MEMORY = """
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

sub = refit.Subscriber(sys.argv[1], transport="wire")
before = resident()
version, seen = None, []
for _ in range(8):
    version = sub.pull(base=version)
    seen.append(resident() - before)
size = version.info.bytes >> 10
assert max(seen) < 2.6 * size, (size, seen)
assert version.traffic.base_version == 1
del version
sub.close()
gc.collect()
assert resident() - before < 0.6 * size, (size, resident() - before)
"""


def test_former_bases_are_let_go_of(service):
    model = Model(service)
    model.tensors = {f"w{i}": memoryview(bytes([i]) * (8 << 20)) for i in range(4)}
    model.publish()
    code, out, err = run(MEMORY, service.address)
    assert (code, err) == (0, ""), (out, err)
