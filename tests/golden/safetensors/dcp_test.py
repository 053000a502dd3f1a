"""Shards that torch.distributed.checkpoint really saved: whole tensors from a folder, a rank's from its file.

    dcp_test.py BIN

BIN is the folder of the programs. Exit code 77: no torch with such a writer, or no package safetensors, is here.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import safetensors.torch
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
except ImportError as error:
    print(f"Skipped: {error}; see deploy/get_torch.sh")
    sys.exit(77)

WORLD = 4


def state_dict() -> dict[str, torch.Tensor]:
    """Whole tensors, alike in all processes."""
    torch.manual_seed(1)
    shapes = {
        "rows": (8, 6),
        "uneven": (9, 3),
        "columns": (5, 8),
        "both": (6, 10),
        "short": (2, 2),
        "replicated": (3,),
        "scalar": (),
    }
    return {f"model.{name}": torch.randn(shape).bfloat16() for name, shape in shapes.items()}


def save(rank: int, folder: str) -> None:
    """One rank of a 2 x 2 mesh saves its part."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (2, 2))
    placements = {
        "rows": [Shard(0), Shard(0)],
        "uneven": [Shard(0), Replicate()],
        "columns": [Replicate(), Shard(1)],
        "both": [Shard(0), Shard(1)],
        "short": [Shard(0), Shard(0)],
        "replicated": [Replicate(), Replicate()],
    }
    state = {
        name: distribute_tensor(value, mesh, placements[key]) if (key := name[6:]) in placements else value
        for name, value in state_dict().items()
    }
    files = {name: 1 + i % 2 for i, name in enumerate(state)}
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(f"{folder}/one", save_distributed=True))
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(f"{folder}/two", files, save_distributed=True))
    torch.distributed.destroy_process_group()


def run(*command: object) -> str:
    """stderr of what must end well."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done)
    return done.stderr


def check(path: pathlib.Path) -> None:
    expected, got = state_dict(), safetensors.torch.load_file(path)
    assert got.keys() == expected.keys(), got.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), (name, got[name], value)


def check_folder(programs: pathlib.Path, address: str, folder: pathlib.Path, version: int) -> None:
    out = folder / "out"
    files = sorted(path.name for path in folder.glob("shard-*"))
    assert len({name[:11] for name in files}) == WORLD, files
    said = run(programs / "refit", "push", "-s", address, "--version", version, folder)
    assert "shards of 4 ranks" in said, said
    run(programs / "refit", "pull", "-s", address, "--version", version, "--out", out, "--verify", folder)
    check(out)
    run(programs / "refit", "convert", "--to", "hf", folder, out)
    check(out)
    alone = subprocess.run(
        [programs / "refit", "push", "-s", address, folder / files[0]], capture_output=True, text=True, timeout=60
    )
    assert alone.returncode == 2 and "--rank and --world are needed" in alone.stderr, alone
    ranks = [
        subprocess.Popen(
            [
                programs / "refit",
                "push",
                "-q",
                "-s",
                address,
                "--version",
                str(version + 1),
                "--rank",
                str(rank),
                "--world",
                str(WORLD),
                folder / next(name for name in files if name[10] == str(rank + 1)),
            ]
        )
        for rank in range(WORLD)
    ]
    assert [rank.wait(60) for rank in ranks] == [0] * WORLD
    run(programs / "refit", "pull", "-s", address, "--version", version + 1, "--out", out, "--verify", folder)
    check(out)


def main(programs: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        savers = [
            subprocess.Popen([sys.executable, "-B", __file__, "--save", str(rank), name]) for rank in range(WORLD)
        ]
        assert [saver.wait(100) for saver in savers] == [0] * WORLD
        port = pathlib.Path(name, "port")
        server = subprocess.Popen(
            [programs / "refit-server", "--listen", "127.0.0.1:0", "--port-file", port], stderr=subprocess.DEVNULL
        )
        try:
            while not port.exists() or not port.read_text().strip():
                assert server.poll() is None
                time.sleep(0.05)
            address = f"127.0.0.1:{port.read_text().strip()}"
            check_folder(programs, address, pathlib.Path(name, "one"), 1)
            check_folder(programs, address, pathlib.Path(name, "two"), 3)
        finally:
            server.terminate()
            server.wait(30)
    print(f"torch {torch.__version__}: shards of {WORLD} ranks, read as they were saved")


if sys.argv[1] == "--save":
    save(int(sys.argv[2]), sys.argv[3])
else:
    main(pathlib.Path(sys.argv[1]))
