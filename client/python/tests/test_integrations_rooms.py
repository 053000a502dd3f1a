"""refit.integrations: which of its rooms knows which, and the names that users write into their settings."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest
from processes import environment

import refit

ROOT = Path(refit.__file__).parent
PREFIX = "refit.integrations."


def imports() -> Iterator[Tuple[Path, str]]:
    """(file below refit/, module of refit.integrations that it imports)."""
    for path in filter(Path.is_file, ROOT.rglob("*.py")):  # a build tree keeps links to files that are gone
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute: a package here is called vllm"
                names = [node.module or ""]
            for name in names:
                if name.startswith(PREFIX):
                    yield path.relative_to(ROOT), name


def test_plugs_know_what_they_share_and_not_each_other() -> None:
    rooms: Set[Tuple[str, str]] = set()
    for file, module in imports():
        assert file.parts[0] == "integrations", f"{file} imports {module}"
        importing, imported = file.parts[1].split(".")[0], module[len(PREFIX) :].split(".")[0]
        if importing not in (imported, "vllm_trainer"):
            rooms.add((importing, imported))
    assert rooms == {(plug, "shared") for plug in ("nemo_rl", "sglang", "verl", "vllm")}


@pytest.mark.parametrize("plug", ["nemo_rl", "sglang", "torch", "vllm"])
def test_importing_a_plug_imports_no_framework(plug: str) -> None:
    frameworks = ["torch", "vllm", "sglang", "ray", "transformers", "huggingface_hub"]
    code = f"import sys, {PREFIX}{plug}; print(*[name for name in {frameworks} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment(), check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "module, names",
    [
        ("nemo_rl", ["RefitCheckpointEngine"]),
        ("sglang", ["DESCRIPTOR", "LOADER", "descriptor", "load", "register", "update_request"]),
        ("torch", ["install_into"]),
        ("vllm", ["BACKEND", "RefitWorkerExtension", "register"]),
    ],
)
def test_documented_names_are_there(module: str, names: "list[str]") -> None:
    plug = importlib.import_module(PREFIX + module)
    assert all(hasattr(plug, name) for name in names)


def test_the_loader_is_found_by_its_path() -> None:
    from refit.integrations.sglang import LOADER, load

    module, name = LOADER.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is load
