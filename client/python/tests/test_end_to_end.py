"""Reinforcement learning in small: a trainer steps and publishes, two workers follow, and say the same."""

import os
import pathlib
import subprocess
import sys

import pytest

import refit

torch = pytest.importorskip("torch")

from moe_model import VOCABULARY, Model, NativeLayer, prompt  # noqa: E402

VERSIONS = 4

# Follows; after each install writes what the engine has and says.
WORKER = """
import sys, torch, refit
from moe_model import HfLayer, Model, prompt
address, folder, name = sys.argv[1:]
model = Model(HfLayer)
own = model.state_dict()

def install(version):
    weights = version.state_dict()
    assert weights.keys() == own.keys(), weights.keys() ^ own.keys()
    with torch.no_grad():
        for key, tensor in weights.items():
            own[key].copy_(tensor)
        said = {"weights": {key: tensor.clone() for key, tensor in weights.items()}, "logits": model(prompt())}
    torch.save(said, f"{folder}/{name}-{version.number}.pt")

worker = refit.Worker(address, install=install, worker=name)
worker.follow(until=lambda: worker.installed >= int(VERSIONS))
""".replace("VERSIONS", str(VERSIONS))


def train(model, optimiser, step):
    """One step of a reward for saying `step`."""
    torch.manual_seed(step)
    logits = model(torch.randint(VOCABULARY, (4, 8)))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.full((32,), step % VOCABULARY))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def adapted(state_dict, dtype):
    return {
        name: tensor
        for native, value in state_dict.items()
        for name, tensor in refit.convert_single_tensor_to_hf(native, value.clone(), dtype=dtype)
    }


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(
        a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
    )


def difference(a, b):
    """Relative to what they are."""
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype, tolerance", [(None, 1e-6), ("bf16", 2.0**-7)])
def test_workers_say_what_the_trainer_says(service, tmp_path, dtype, tolerance):
    torch.manual_seed(0)
    trainer = Model(NativeLayer)
    optimiser = torch.optim.AdamW(trainer.parameters(), lr=1e-2)
    path = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, service.address, str(tmp_path), name], env=dict(os.environ, PYTHONPATH=path)
        )
        for name in ("w0", "w1")
    ]
    try:
        publisher = refit.Publisher(service.address)
        before = None
        for number in range(1, VERSIONS + 1):
            train(trainer, optimiser, number)
            with publisher.version(number, dtype=dtype) as version:
                version.push(trainer.state_dict())
            assert publisher.wait_for_workers(number, workers=2, timeout=60) >= 2
            expected = adapted(trainer.state_dict(), dtype)
            with torch.no_grad():
                logits = trainer(prompt())
            for name in ("w0", "w1"):
                said = torch.load(tmp_path / f"{name}-{number}.pt")
                assert said["weights"].keys() == expected.keys()
                assert all(same_bits(said["weights"][key], expected[key]) for key in expected)
                assert difference(said["logits"], logits) < tolerance
            assert before is None or difference(before, logits) > 2 * tolerance
            before = logits
        assert [worker.wait(60) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
