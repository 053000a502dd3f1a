"""Which part of a tensor a rank holds: against torch's own arithmetic, and pushed by real ranks."""

import itertools
import os
import socket
import subprocess
import sys

import pytest

import refit
from refit.dtensor import is_dtensor, local_part

torch = pytest.importorskip("torch")


class Shard:
    def __init__(self, dim):
        self.dim = dim


class _StridedShard(Shard):
    pass


class Replicate:
    pass


class Partial:
    pass


class Mesh:
    def __init__(self, sizes, coordinate):
        self.sizes, self.coordinate = sizes, coordinate

    def size(self, dimension):
        return self.sizes[dimension]

    def get_coordinate(self):
        return self.coordinate


class Sharded:
    """As much of a DTensor as is looked at."""

    def __init__(self, whole, sizes, coordinate, placements):
        self.shape, self.placements, self.device_mesh = whole.shape, placements, Mesh(sizes, coordinate)
        self.local = whole
        order = [i for i, p in enumerate(placements) if type(p) is Shard]
        order += [i for i, p in reversed(list(enumerate(placements))) if type(p) is _StridedShard]
        for i in order:
            chunks = torch.chunk(self.local, sizes[i], placements[i].dim)
            empty = self.local.narrow(placements[i].dim, 0, 0)
            self.local = chunks[coordinate[i]] if coordinate[i] < len(chunks) else empty

    def to_local(self):
        return self.local


def parts(whole, sizes, placements):
    """The box and local tensor of each rank."""
    for coordinate in itertools.product(*[range(size) for size in sizes]):
        tensor = Sharded(whole, sizes, list(coordinate), placements)
        assert is_dtensor(tensor)
        yield local_part("w", tensor)


@pytest.mark.parametrize(
    "sizes, placements",
    [
        ([3], [Shard(0)]),
        ([4], [Shard(-1)]),
        ([8], [Shard(0)]),
        ([2, 3], [Shard(0), Shard(1)]),
        ([2, 2], [Shard(0), Shard(0)]),
        ([2, 2], [_StridedShard(0), Shard(0)]),
        ([2, 2], [Replicate(), Shard(1)]),
    ],
)
def test_boxes_are_where_the_elements_are(sizes, placements):
    whole = torch.arange(5 * 7).reshape(5, 7)
    seen = torch.zeros(5, 7, dtype=torch.int64)
    for box, local in parts(whole, sizes, placements):
        window = tuple(slice(o, o + s) for o, s in zip(box.offsets, box.sizes))
        assert torch.equal(whole[window].reshape(-1), local.reshape(-1))
        seen[window] += 1
    assert seen.unique().numel() == 1  # each as often as it is replicated


def test_partial_is_refused_by_name():
    with pytest.raises(refit.InvalidArgument, match="Partial") as error:
        local_part("w", Sharded(torch.zeros(2), [2], [0], [Partial()]))
    assert error.value.tensor == "w"


def test_a_rank_outside_of_the_mesh_holds_nothing():
    tensor = Sharded(torch.zeros(2, 2), [2], [0], [Shard(0)])
    tensor.device_mesh.coordinate = None
    assert local_part("w", tensor)[0].sizes == (0, 0)


RANK = """
import sys, torch, torch.distributed as dist, refit
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, Replicate, distribute_tensor
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
generator = torch.Generator().manual_seed(1)
whole = {name: torch.randn(5, 6, generator=generator) for name in ("s0", "s1", "r")}
placed = {"s0": [Shard(0)], "s1": [Shard(1)], "r": [Replicate()]}
state = {name: distribute_tensor(tensor, mesh, placed[name]) for name, tensor in whole.items()}
state["plain"] = torch.arange(4.0)
with refit.Publisher(sys.argv[1], adapter="identity").version(1) as version:
    version.push(state)
if dist.get_rank() == 0:
    got = refit.Subscriber(sys.argv[1]).pull(1)
    assert all(torch.equal(got[name], tensor) for name, tensor in whole.items())
    assert torch.equal(got["plain"], state["plain"])
dist.barrier()
dist.destroy_process_group()
"""


def test_ranks_of_torch_distributed_push_what_they_hold(service):
    pytest.importorskip("torch.distributed.tensor", reason=f"torch {torch.__version__} has no public DTensor")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        ranks.append(subprocess.Popen([sys.executable, "-c", RANK, service.address], env=environment))
    assert [rank.wait(120) for rank in ranks] == [0, 0]
