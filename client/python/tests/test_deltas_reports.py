"""What users of systems that send changed weights have reported, tried with workers that are processes of their own.
tests/SITUATIONS.md says which reports these are."""

import hashlib
import json
import signal
import subprocess
import threading

import pytest

import refit
from processes import run, start
from stepped import Model

WORKER = """
import hashlib, json
options = json.loads(sys.argv[2])
fails, keeps = options.pop("fails", []), options.pop("keeps", True)
held = []

def install(version):
    if version.number in fails:
        fails.remove(version.number)
        raise ValueError("the engine is busy")
    held[:] = [version] if keeps else []
    digest = hashlib.sha256()
    for tensor in version.tensors:
        digest.update(tensor.memory)
    traffic = version.traffic
    print(json.dumps([version.number, digest.hexdigest(), traffic.wire_bytes, traffic.base_version]), flush=True)

refit.Worker(sys.argv[1], install=install, transport="wire", **options).follow()
"""


def digest_of(model):
    digest = hashlib.sha256()
    for values in model.tensors.values():
        digest.update(values)
    return digest.hexdigest()


def content(version):
    return {tensor.name: bytes(memoryview(tensor.memory)) for tensor in version.tensors}


class Follower:
    """A worker in a process of its own, which keeps what it installs."""

    def __init__(self, service, **options):
        self.process = start(WORKER, service.address, json.dumps(options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def next(self):
        """What it has installed: (number, digest, bytes that came, base)."""
        return json.loads(self.process.stdout.readline())

    def expect(self, model, base):
        number, digest, came, of = self.next()
        assert (number, digest, of) == (model.number, digest_of(model), base)
        assert came == model.nbytes if base is None else came < model.nbytes / 20
        return came


@pytest.fixture
def model(service):
    made = Model(service)
    made.publish()
    return made


@pytest.fixture
def publisher(service):
    with refit.Publisher(service.address) as connected:
        yield connected


def test_a_version_in_which_nothing_has_changed_is_a_version(service, model, publisher):
    with Follower(service) as worker:
        worker.expect(model, None)
        model.publish()
        assert worker.expect(model, 1) == 0
        publisher.wait_for_workers(2, all=True, timeout=30)
        model.step()
        worker.expect(model, 2)


def test_a_failed_install_is_told_and_its_changes_are_not_lost(service, model, publisher):
    with Follower(service, fails=[2]) as worker:
        worker.expect(model, None)
        model.step()
        with pytest.raises(refit.DeadlineExceeded, match="the engine is busy"):
            publisher.wait_for_workers(2, all=True, timeout=2)
        model.step()
        worker.expect(model, 1)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_worker_that_was_killed_gets_all_and_then_changes(service, model, keeps):
    options = {"keeps": keeps, "keep_base": not keeps}
    with Follower(service, **options) as first:
        first.expect(model, None)
        model.step()
        first.expect(model, 1)
        first.process.kill()
        with Follower(service, **options) as second:
            second.expect(model, None)
            model.step()
            second.expect(model, 2)


def test_a_worker_that_joins_late_beside_others_that_have_a_base(service, model):
    with Follower(service) as early:
        early.expect(model, None)
        model.step()
        early.expect(model, 1)
        with Follower(service) as late:
            late.expect(model, None)
            for base in (2, 3):
                model.step()
                early.expect(model, base)
                late.expect(model, base)


def test_a_worker_that_slept_through_several_versions(model):
    sub = refit.Subscriber(model.address, transport="wire")
    first = sub.pull()
    for _ in range(5):  # the service keeps two
        model.step()
    version = sub.pull(base=first)
    assert model.same(version)
    assert version.traffic.base_version == 1 or "retired" in version.traffic.base_refused


def test_a_trainer_that_resumes_from_an_older_checkpoint(service, model):
    former = {name: values[:] for name, values in model.tensors.items()}
    with Follower(service) as worker:
        worker.expect(model, None)
        for base in (1, 2):
            model.step()
            worker.expect(model, base)
        model.tensors, model.number = former, 0
        model.tensors["frozen"][7] = -0.0
        model.publish(trainer_epoch=1)  # version 1 again, with other values
        number, digest, came, base = worker.next()
        assert (number, digest) == (1, digest_of(model))
        assert base == 3 and came < model.nbytes / 20
        model.publish(trainer_epoch=1)
        assert worker.expect(model, 1) == 0


def test_a_service_that_dies_and_comes_back_with_another_version_of_that_number():
    with refit.serve() as first:
        address = first.address
        model = Model(first)
        model.publish()
        with Follower(first, accept_new_run=True) as worker:
            worker.expect(model, None)
            first.close()
            with refit.serve(address) as second:
                again = Model(second)
                again.tensors["weight"][::3] = again.tensors["weight"][1::3]
                again.publish(number=1)
                again.step()
                while True:  # it may be connected again before version 2 is there
                    number, digest, _, base = worker.next()
                    if number == 2:
                        break
                assert digest == digest_of(again)


CUT = """
address, number = sys.argv[1], int(sys.argv[2])
sub = refit.Subscriber(address, transport="wire")
out = {name: bytearray(size) for name, size in (("a", 8 << 20), ("b", 8 << 20))}
first = sub.pull(1, out=out)
print("has 1", flush=True)
try:
    sub.pull(2, out=out, base=first)
except refit.RefitError as error:
    print("torn" if error.torn else "whole", out["a"][1], out["b"][1], flush=True)
sys.stdin.readline()
version = sub.pull(3, out=out, base=first)
print(out["a"] == bytes([3]) * (8 << 20), out["b"] == bytes([3]) * (8 << 20), version.traffic.base_refused != "")
"""


def test_memory_that_was_half_written_is_no_base_any_more(service):
    def tensors(value):
        return {name: memoryview(bytes([value]) * (8 << 20)) for name in ("a", "b")}

    publisher = refit.Publisher(service.address, adapter="identity")
    with publisher.version(1) as version:
        version.push(tensors(1))
    worker = start(CUT, service.address, 2, stdin=subprocess.PIPE)
    assert worker.stdout.readline() == "has 1\n"
    second = publisher.version(2, declare={"a": ("u8", [8 << 20]), "b": ("u8", [8 << 20])})
    changed = bytearray(bytes([1]) * (8 << 20))
    changed[1] = 2
    second.push({"a": memoryview(changed)})
    second.abort("the trainer thinks better of it")
    assert worker.stdout.readline() in ("torn 2 1\n", "whole 1 1\n")
    with publisher.version(3) as version:
        version.push(tensors(3))
    out, err = worker.communicate("\n", timeout=60)
    assert (worker.returncode, err) == (0, "") and out.startswith("True True"), (out, err)


def test_a_worker_that_was_stopped_meanwhile(service, model):
    """As in a debugger, or by a scheduler."""
    with Follower(service) as worker:
        worker.expect(model, None)
        worker.process.send_signal(signal.SIGSTOP)
        for _ in range(4):
            model.step()
        worker.process.send_signal(signal.SIGCONT)
        while True:
            number, digest, _, _ = worker.next()
            if number == model.number:
                break
        assert digest == digest_of(model)


def test_many_workers_of_one_delta_beside_one_of_another(service, model):
    def follow(got):
        sub = refit.Subscriber(model.address, transport="wire")
        version = sub.pull(1)
        ready.wait()
        got.append(sub.pull(3, base=version))

    ready = threading.Barrier(9)
    got = []
    threads = [threading.Thread(target=follow, args=(got,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    model.step()
    model.number = 2
    model.step()
    ready.wait()
    for thread in threads:
        thread.join()
    assert len(got) == 8 and all(model.same(version) for version in got)


def test_experts_that_are_transposed_and_cast(service):
    """The service compares what it has converted: a small step of the F32 masters changes few BF16 values, and those lie
    in the transposed tensors."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(7)
    experts = "model.language_model.layers.0.moe.experts."
    state = {
        experts + "gate_and_up_projs": torch.randn(4, 96, 128, generator=generator),
        experts + "down_projs": torch.randn(4, 64, 96, generator=generator),
        "model.language_model.norm.weight": torch.tensor([1.0, float("nan"), -0.0, float("inf")]),
    }
    sub = refit.Subscriber(service.address, transport="wire")
    version = None
    for number in (1, 2, 3):
        with refit.Publisher(service.address).version(number, dtype="bf16") as pushed:
            pushed.push(state)
        whole = sub.pull(number)
        version = sub.pull(number, base=version)
        assert content(version) == content(whole)
        assert version.traffic.base_version == (number - 1 or None)
        assert number == 1 or 0 < version.traffic.wire_bytes < whole.traffic.wire_bytes / 4
        for name in (experts + "gate_and_up_projs", experts + "down_projs"):
            state[name] *= 1 + 1e-4 * torch.randn(state[name].shape, generator=generator)
        state["model.language_model.norm.weight"] = -state["model.language_model.norm.weight"]


def test_views_that_are_not_contiguous_on_either_side(service):
    torch = pytest.importorskip("torch")
    weight = torch.arange(40_000, dtype=torch.float32).view(200, 200)
    publisher = refit.Publisher(service.address, adapter="identity")
    sub = refit.Subscriber(service.address, transport="wire")
    fused = torch.zeros(3, 200, 200)
    out = {"q": fused[0], "k": fused[1], "v": fused[2]}  # parts of one parameter
    version = None
    for number in (1, 2, 3):
        with publisher.version(number) as pushed:
            pushed.push({"q": weight.t(), "k": weight.flip(0), "v": weight[::1, :]})
        version = sub.pull(number, out=out, base=version)
        assert torch.equal(fused, torch.stack([weight.t(), weight.flip(0), weight]))
        assert version.traffic.base_version == (number - 1 or None)
        weight.view(-1)[::500] += 1
    with pytest.raises(refit.InvalidArgument, match="tensor k: .*not contiguous"):
        sub.pull(3, out={**out, "k": fused[1].t()}, base=version)
    fused.view(-1)[40_000:].set_(torch.zeros(1))  # a view that goes elsewhere leaves the rest
    assert sub.pull(3, out=out, base=version).traffic.wire_bytes == 0


def test_memory_that_torch_has_freed(service):
    """As FSDP frees what it has gathered."""
    torch = pytest.importorskip("torch")
    publisher = refit.Publisher(service.address, adapter="identity")
    with publisher.version(1) as version:
        version.push({"w": torch.ones(100_000)})
    sub = refit.Subscriber(service.address, transport="wire")
    out = {"w": torch.zeros(100_000)}
    first = sub.pull(out=out)
    storage = out["w"].untyped_storage() if hasattr(out["w"], "untyped_storage") else out["w"].storage()
    storage.resize_(0)
    version = sub.pull(base=first)
    assert "tensor w" in version.traffic.base_refused and "freed" in version.traffic.base_refused
    assert torch.equal(version["w"], torch.ones(100_000))


MEMORY_OF_A_WORKER = """
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

before = resident()
installed = lambda version: print(resident() - before, flush=True)
refit.Worker(sys.argv[1], install=installed, transport="wire", keep_base=sys.argv[2] == "True").follow()
"""


@pytest.mark.parametrize("keep_base, most", [(False, 1), (True, 2)])
def test_what_keeping_a_base_costs(service, keep_base, most):
    """In versions; with what a connection needs besides."""
    values = {f"w{i}": bytearray([i]) * (16 << 20) for i in range(3)}
    worker = start(MEMORY_OF_A_WORKER, service.address, keep_base)
    try:
        for number in range(1, 7):
            with refit.Publisher(service.address, adapter="identity") as publisher:
                with publisher.version(number, rank=0, world=1) as version:
                    version.push(values)
            assert int(worker.stdout.readline()) < (most + 0.6) * (48 << 10)
            values["w1"][number] += 1
    finally:
        worker.kill()
        worker.communicate()
