"""What public reports tell of checkpoints on disk, tried with the command line. tests/SITUATIONS.md lists them.

    reports_test.py BIN

BIN is the folder of the programs. Exit code 77: no package safetensors is here.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Callable

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    print(f"Skipped: {error}; see deploy/get_torch.sh")
    sys.exit(77)

PROGRAM = pathlib.Path(sys.argv[1], "refit")


def tensor(value: float) -> np.ndarray:
    return np.full((2, 3), value, dtype=np.float32)


def convert(source: pathlib.Path, out: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "convert", "--to", "hf", str(source), str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def expect(folder: pathlib.Path, expected: dict[str, float], *options: str) -> str:
    """What is said while the folder becomes these tensors."""
    out = folder.parent / "out.safetensors"
    done = convert(folder, out, *options)
    assert done.returncode == 0, done
    assert {name: value[0, 0] for name, value in load_file(out).items()} == expected
    return done.stderr


def expect_refusal(folder: pathlib.Path, *words: str) -> None:
    done = convert(folder, folder.parent / "none.safetensors")
    assert done.returncode == 1 and all(word in done.stderr for word in words), done
    assert not (folder.parent / "none.safetensors").exists()


def write_index(folder: pathlib.Path, **files: str) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": files})
    )


def the_index_names_a_file_that_is_not_there(folder: pathlib.Path) -> None:
    """sglang#32279, mlx-vlm#1827, CoSER#3: such a model was loaded with garbage in the missing part's place."""
    save_file({"a": tensor(1)}, folder / "model-00001-of-00002.safetensors")
    write_index(folder, a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors")
    expect_refusal(folder, "model-00002-of-00002.safetensors", "No such file")


def the_index_names_a_tensor_that_its_file_lacks(folder: pathlib.Path) -> None:
    """huggingface_hub#4728."""
    save_file({"a": tensor(1)}, folder / "model.safetensors")
    write_index(folder, a="model.safetensors", mtp="model.safetensors")
    expect_refusal(folder, '"mtp" is missing', "model.safetensors.index.json")
    expect(folder, {"a": 1}, "--exclude-key-regex", "mtp")


def the_index_leaves_out_tensors(folder: pathlib.Path) -> None:
    """TensorRT-LLM#16437: nobody was told."""
    save_file({"a": tensor(1), "b": tensor(2), "c": tensor(3)}, folder / "model.safetensors")
    write_index(folder, b="model.safetensors")
    assert "2 tensors of its files left out" in expect(folder, {"b": 2})


def a_tensor_is_in_two_files(folder: pathlib.Path) -> None:
    """spark-vllm-docker#134: the index says in which it counts."""
    save_file({"a": tensor(1), "b": tensor(2)}, folder / "x.safetensors")
    save_file({"b": tensor(3)}, folder / "y.safetensors")
    write_index(folder, a="x.safetensors", b="y.safetensors")
    expect(folder, {"a": 1, "b": 3})


def the_same_model_lies_there_in_another_layout(folder: pathlib.Path) -> None:
    """vllm#40765: both were loaded."""
    save_file({"a": tensor(1)}, folder / "model-00001-of-00001.safetensors")
    save_file({"layers.a": tensor(2)}, folder / "consolidated.safetensors")
    expect_refusal(folder, "got 2 such files and no index")
    write_index(folder, a="model-00001-of-00001.safetensors")
    assert "left out" not in expect(folder, {"a": 1})


def bytes_follow_the_last_tensor(folder: pathlib.Path) -> None:
    """ComfyUI#15602: refused, as the reference does; and called truncated, which it is not."""
    path = folder / "model.safetensors"
    save_file({"a": tensor(1)}, path)
    path.write_bytes(path.read_bytes() + b"tail")
    expect_refusal(folder, "the last belong to no tensor")


def a_file_is_shorter_than_it_says(folder: pathlib.Path) -> None:
    """vmlx-swift#217: zeros, or whatever there was, were read beyond its end."""
    path = folder / "model.safetensors"
    save_file({"a": tensor(1)}, path)
    os.truncate(path, path.stat().st_size - 1)
    expect_refusal(folder, '"a"', "truncated")


def a_file_is_written_over_itself(folder: pathlib.Path) -> None:
    """unsloth-zoo#1078: it was cut while it was read."""
    path = folder / "model.safetensors"
    save_file({f"t{i}": tensor(i) for i in range(100)}, path)
    done = convert(path, path)
    assert done.returncode == 0, done
    assert {name: value[0, 0] for name, value in load_file(path).items()} == {f"t{i}": i for i in range(100)}


def a_file_may_not_be_read(folder: pathlib.Path) -> None:
    """safetensors#810: it was said not to be there."""
    if os.geteuid() == 0:
        print("a_file_may_not_be_read: not run, root may read anything")
        return
    path = folder / "model.safetensors"
    save_file({"a": tensor(1)}, path)
    path.chmod(0)
    expect_refusal(folder, "Permission denied")


REPORTS: list[Callable[[pathlib.Path], None]] = [
    the_index_names_a_file_that_is_not_there,
    the_index_names_a_tensor_that_its_file_lacks,
    the_index_leaves_out_tensors,
    a_tensor_is_in_two_files,
    the_same_model_lies_there_in_another_layout,
    bytes_follow_the_last_tensor,
    a_file_is_shorter_than_it_says,
    a_file_is_written_over_itself,
    a_file_may_not_be_read,
]

for report in REPORTS:
    with tempfile.TemporaryDirectory() as name:
        checkpoint = pathlib.Path(name, "checkpoint")
        checkpoint.mkdir()
        report(checkpoint)
print(f"{len(REPORTS)} reports tried")
