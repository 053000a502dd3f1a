"""Finds which part of a torch DTensor this rank holds.

DTensors are recognised by their attributes (placements, device_mesh, to_local), so that torch.distributed need not be
imported.
"""

from __future__ import annotations

import sys
from typing import Any, List, Tuple

from refit import _refit
from refit.errors import InvalidArgument
from refit.intake import is_dtensor, local


def local_part(name: str, tensor: Any) -> Tuple["_refit.Box", Any]:
    """(box within the whole tensor, local tensor) of a DTensor. The box is empty on a rank outside of the mesh.

    Shard cuts like torch.chunk. _StridedShard (FSDP over tensor parallelism on one dimension) cuts the parts that the
    plain shards of that dimension have made.

    Raises:
        InvalidArgument: for a placement that does not describe a part of a tensor, such as Partial, or if the local
            tensor has another shape.
    """
    shape = [int(size) for size in tensor.shape]
    offsets, sizes = [0] * len(shape), list(shape)
    coordinate = tensor.device_mesh.get_coordinate()
    held = local(name, tensor)
    if coordinate is None:
        return _refit.Box(offsets, [0] * len(shape)), held
    for mesh_dimension, dimension in _cuts(name, tensor.placements, len(shape)):
        parts = tensor.device_mesh.size(mesh_dimension)
        begin, size = _chunk(sizes[dimension], coordinate[mesh_dimension], parts)
        offsets[dimension] += begin
        sizes[dimension] = size
    if tuple(sizes) != tuple(held.shape) and held.numel() != 0:
        raise InvalidArgument(
            f"tensor {name}: placements {tuple(tensor.placements)} give this rank {sizes} of {shape}, but its local tensor is "
            f"{list(held.shape)}",
            tensor=name,
        )
    return _refit.Box(offsets, sizes), held


def _cuts(name: str, placements: Any, rank: int) -> List[Tuple[int, int]]:
    """(mesh dimension, tensor dimension) of each cut, in the order of the cuts."""
    plain: List[Tuple[int, int]] = []
    strided: List[Tuple[int, int]] = []
    for mesh_dimension, placement in enumerate(placements):
        kind = type(placement).__name__
        if kind == "Replicate":
            continue
        if kind not in ("Shard", "_StridedShard"):
            raise InvalidArgument(
                f"tensor {name}: placement {placement} is no part of it; expected Shard or Replicate", tensor=name
            )
        cut = (mesh_dimension, placement.dim % rank)
        (plain if kind == "Shard" else strided).append(cut)
    return plain + strided[::-1]


def _chunk(size: int, part: int, parts: int) -> Tuple[int, int]:
    length = -(-size // parts)
    begin = min(part * length, size)
    return begin, min(length, size - begin)


def process_rank() -> Tuple[int, int]:
    """(rank, world) of torch.distributed if it is initialised; else (0, 1)."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


__all__ = ["is_dtensor", "local_part", "process_rank"]
