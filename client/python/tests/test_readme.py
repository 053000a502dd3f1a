"""What the documentation shows works as it is pasted."""

import pathlib
import re
import subprocess
import sys

import pytest

import refit
from processes import environment

DOCUMENTS = pathlib.Path(refit.__file__).resolve().parents[1] / "docs"
if not DOCUMENTS.is_dir():
    DOCUMENTS = pathlib.Path(__file__).parents[1] / "docs"
torch = pytest.importorskip("torch", reason="torch is not installed, and the documentation uses it")


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_page_of_tensors():
    code = "".join(blocks((DOCUMENTS / "tensors.md").read_text(encoding="utf-8")))
    code += "print(*(f'{tensor.name} {tensor.dtype}' for tensor in refit.Subscriber(service.address).pull(2).tensors))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "weight torch.bfloat16 (2, 4)",
        "bias torch.bfloat16 (2,)",
        "weight BF16 (2, 4) (2, 4) (0, 0) 16",
        "0 1",
        "gate.e_score_correction_bias F32 gate.weight BF16",
    ]
