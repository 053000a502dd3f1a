"""`refit convert --to native`: the way back, and what others' converters got wrong on it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REFIT, run, shell
from test_families import FOLDER, flags_of, own_family, own_tensors, read, write

FROM_HF = FOLDER.parent / "families_from_hf"
CASES = json.loads((FROM_HF / "cases.json").read_text())
WHOLE = FOLDER / "qwen3_moe/whole_0.out.safetensors"
FLAGS = ("--adapter", "qwen3_moe", "--experts", "4")


def back(source: Path, out: Path, *flags: str) -> Any:
    return run(REFIT, "convert", "--to", "native", *flags, str(source), str(out))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_it_gives_the_reference_bytes(case: dict[str, Any], tmp_path: Path) -> None:
    native, out = tmp_path / "native.safetensors", tmp_path / "hf.safetensors"
    done = back(FOLDER / case["input"], native, *flags_of(case), "--dtype", case["args"]["dtype"])
    assert done.code == 0, done
    assert read(native) == read(FROM_HF / case["output"])
    assert run(REFIT, "convert", "--to", "hf", *flags_of(case), str(native), str(out)).code == 0
    assert read(out) == read(FOLDER / case["input"])


def test_a_family_of_ones_own_goes_back(tmp_path: Path) -> None:
    family, source = own_family(tmp_path), tmp_path / "in.safetensors"
    hf, out = tmp_path / "hf.safetensors", tmp_path / "out.safetensors"
    own_tensors(source)
    flags = ("--adapter-file", str(family), "--adapter", "acme_moe")
    assert run(REFIT, "convert", "--to", "hf", *flags, str(source), str(hf)).code == 0
    assert back(hf, out, *flags).code == 0
    assert read(out) == read(source)


def test_a_family_that_cannot_go_back_says_which_line(tmp_path: Path) -> None:
    for rule, why in (("[[rule]]\nsuffix = '.x'\nparts = 'layers\\.(\\d+)'\nto = 'l.\\1.x'\n", "'native' has to"),
                      ("[[rule]]\nregex = 'a.*b'\nto = 'c'\n", "no fixed text"),
                      ("[[rename]]\nregex = 'a(\\d)'\nto = 'c'\n", "group 1 is lost")):
        family = tmp_path / "lossy.toml"
        family.write_text(f"name = 'lossy'\n{rule}")
        done = back(WHOLE, tmp_path / "out", "--adapter-file", str(family), "--adapter", "lossy")
        assert done.code == 1 and "lossy.toml:2: " in done.err and why in done.err, done


def changed(folder: Path, tensors: dict[str, Any]) -> Path:
    path = folder / "in.safetensors"
    write(path, tensors)
    return path


def test_a_checkpoint_without_one_shard_is_refused(tmp_path: Path) -> None:
    tensors = read(WHOLE)
    name = next(name for name in tensors if ".experts.2.up_proj" in name)
    source = changed(tmp_path, {other: tensor for other, tensor in tensors.items() if other != name})
    done = back(source, tmp_path / "out", *FLAGS)
    assert done.code == 1 and f"tensor {name} " in done.err and "is missing" in done.err, done
    assert not (tmp_path / "out").exists()


def test_matrices_that_are_transposed_already_are_refused(tmp_path: Path) -> None:
    def turned(name: str, tensor: tuple[str, tuple[int, ...], bytes]) -> Any:
        return (tensor[0], tensor[1][::-1], tensor[2]) if ".experts.1.gate_proj" in name else tensor
    source = changed(tmp_path, {name: turned(name, tensor) for name, tensor in read(WHOLE).items()})
    done = back(source, tmp_path / "out", *FLAGS)
    assert done.code == 1 and ".experts.1.gate_proj" in done.err and "expected [" in done.err, done


@pytest.mark.parametrize("prefix", ["", "model.model.", "base_model.model.model.", "model.language_model."])
def test_another_prefix_is_not_half_converted(prefix: str, tmp_path: Path) -> None:
    source = changed(tmp_path, {name.replace("model.", prefix, 1): t for name, t in read(WHOLE).items()})
    done = back(source, tmp_path / "out", *FLAGS)
    assert done.code == 1 and "prefix" in done.err, done


def test_quantised_experts_are_not_half_converted(tmp_path: Path) -> None:
    tensors = read(WHOLE)
    scale = next(name for name in tensors if ".experts.0.down_proj" in name) + "_scale_inv"
    done = back(changed(tmp_path, {**tensors, scale: ("F32", (1, 1), bytes(4))}), tmp_path / "out", *FLAGS)
    assert done.code == 1 and scale in done.err and "quantised" in done.err, done
    grouped = "model.language_model.layers.0.mlp.experts.gate_up_proj_scale_inv"
    source = changed(tmp_path, {grouped: ("F32", (1, 1, 1), bytes(4))})
    done = back(source, tmp_path / "out", "--adapter", "qwen3_5_moe")
    assert done.code == 1 and grouped in done.err and "quantised" in done.err, done
    blocks = "model.layers.0.mlp.experts.gate_up_proj_blocks"
    done = back(changed(tmp_path, {blocks: ("U8", (1, 1), bytes(1))}), tmp_path / "out", "--adapter", "gpt_oss")
    assert done.code == 1 and blocks in done.err, done


def test_a_tied_head_is_neither_made_nor_lost(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in read(WHOLE).items() if not name.startswith("lm_head")}
    assert back(changed(tmp_path, tensors), tmp_path / "out", *FLAGS).code == 0
    assert "lm_head.weight" not in read(tmp_path / "out")
    head = tensors["model.embed_tokens.weight"]
    assert back(changed(tmp_path, {**tensors, "lm_head.weight": head}), tmp_path / "out", *FLAGS).code == 0
    assert read(tmp_path / "out")["lm_head.weight"] == head


def test_dtypes_stay_unless_asked(tmp_path: Path) -> None:
    assert back(WHOLE, tmp_path / "out", *FLAGS).code == 0
    there = read(FOLDER / "qwen3_moe/whole_0.in.safetensors")
    assert {name: tensor[0] for name, tensor in read(tmp_path / "out").items()} == {
        name: tensor[0] for name, tensor in there.items()}
    assert back(WHOLE, tmp_path / "out", *FLAGS, "--dtype", "F32").code == 0
    cast = {name for name, tensor in read(tmp_path / "out").items() if tensor[0] != there[name][0]}
    assert cast and all(".mlp.experts." in name for name in cast)


def test_a_native_file_is_not_taken_for_another(tmp_path: Path) -> None:
    done = back(FOLDER / "qwen3_moe/whole_0.in.safetensors", tmp_path / "out", *FLAGS)
    assert done.code == 1 and "native already" in done.err, done


def test_it_writes_through_a_pipe(tmp_path: Path) -> None:
    done = shell(f"$REFIT convert --to native {' '.join(FLAGS)} {WHOLE} - > {tmp_path}/piped", cwd=str(tmp_path))
    assert done.code == 0 and "Wrote" in done.err, done
    assert back(WHOLE, tmp_path / "out", *FLAGS).code == 0
    assert (tmp_path / "piped").read_bytes() == (tmp_path / "out").read_bytes()


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    tensors, folder = read(WHOLE), tmp_path / "checkpoint"
    folder.mkdir()
    files = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        write(folder / file, {name: tensors[name] for name in tensors if files[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert back(folder, tmp_path / "out", *FLAGS).code == 0
    assert read(tmp_path / "out") == read(FOLDER / "qwen3_moe/whole_0.in.safetensors")
