"""--adapter, wherever native tensors become Hugging Face tensors."""
from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from conftest import REFIT, Service, run


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """A file whose names no adapter of a family would take for its own."""
    path = tmp_path / "hf.safetensors"
    data = struct.pack("<8f", *range(8))
    header = json.dumps({"model.experts.gate_up_proj": {"dtype": "F32", "shape": [2, 4],
                                                        "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def data_of(path: Path) -> tuple[list[str], bytes]:
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return [name for name in json.loads(content[8:8 + size]) if name != "__metadata__"], content[8 + size:]


def test_identity_is_pushed_verified_and_told(service: Service, hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    pushed = service.refit("push", "--adapter", "identity", str(hf), "--version", "1")
    assert pushed.code == 0, pushed
    pulled = service.refit("pull", "--adapter", "identity", "--verify", str(hf), "--out", str(out))
    assert pulled.code == 0, pulled
    assert data_of(out) == data_of(hf)
    assert "by adapter identity" in service.refit("describe", "1").out


def test_a_cast_is_verified_too(service: Service, hf: Path) -> None:
    cast = ("--adapter", "identity", "--dtype", "BF16")
    assert service.refit("push", *cast, str(hf), "--version", "1").code == 0
    assert service.refit("pull", *cast, "--verify", str(hf)).code == 0
    assert service.refit("pull", "--adapter", "identity", "--verify", str(hf)).code == 6


def test_ranks_cut_as_their_adapter_says(service: Service, hf: Path) -> None:
    rank = ("push", "--adapter", "identity", str(hf), "--version", "1", "--world", "2", "--fsdp-size", "2", "--rank")
    first = service.start(*rank, "0")
    second = service.refit(*rank, "1")
    assert first.wait(30) == 0 and second.code == 0, second
    assert service.refit("pull", "--adapter", "identity", "--verify", str(hf)).code == 0


def test_convert(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "identity", str(hf), str(out))
    assert done.code == 0, done
    assert data_of(out) == data_of(hf)


def test_what_only_one_has_is_wrong_usage_with_others() -> None:
    for way in (("--to", "native", "--ep-size", "2"), ("--to", "hf", "--mode", "state-dict")):
        done = run(REFIT, "convert", *way, "--adapter", "identity", "in", "out")
        assert done.code == 2 and "gemma4_moe" in done.err, done
    done = run(REFIT, "convert", "--to", "native", "--adapter", "auto", "in", "out")
    assert done.code == 2 and "name the adapter" in done.err, done


@pytest.mark.parametrize("command", [("push", "--synthetic", "gemma4_tiny"), ("pull", "--verify", "f"),
                                     ("convert", "--to", "hf", "in", "out")])
def test_an_unknown_one_is_wrong_usage_and_the_known_are_listed(command: tuple[str, ...]) -> None:
    done = run(REFIT, *command, "--adapter", "gemma5")
    assert done.code == 2 and done.out == "", done
    assert "'gemma5' is not one of gemma4_moe, identity, qwen3_moe" in done.err
