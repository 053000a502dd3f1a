"""What `import refit` gives, and what it leaves alone. In processes of their own: pytest has imported much already."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import refit
from processes import environment


def said(code):
    return subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment(), check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()


def test_importing_refit_imports_nothing_heavy():
    heavy = ["torch", "numpy", "asyncio", "multiprocessing", "concurrent.futures", "ml_dtypes", "tqdm"]
    assert said(f"import sys, refit; print(*[name for name in {heavy} if name in sys.modules])") == []


def test_what_belongs_to_refit_is_there_when_it_is_asked_for():
    names = said("import refit; print(refit.aio.Publisher.__name__, refit.integrations.__name__, *dir(refit))")
    assert names[:2] == ["Publisher", "refit.integrations"]
    assert {"aio", "integrations", *refit.__all__} <= set(names)


@pytest.mark.parametrize("plug", ["nemo_rl", "sglang", "torch", "vllm"])
def test_a_plug_is_there_when_it_is_asked_for(plug):
    if plug == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    assert said(f"import refit; print(refit.integrations.{plug}.__name__)") == [f"refit.integrations.{plug}"]


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'refit' has no attribute 'publish'"):
        refit.publish
    with pytest.raises(AttributeError, match="'megatron'; there are nemo_rl, sglang, torch, verl, vllm"):
        refit.integrations.megatron
    assert not hasattr(refit, "publish")


def test_modules_do_not_import_one_another_in_circles():
    root = Path(refit.__file__).parent
    imports = {}
    for path in filter(Path.is_file, root.rglob("*.py")):  # a build tree keeps links to files that are gone
        module = ".".join(("refit", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        found = imports.setdefault(module, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refit."):
                found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    assert "refit.pulled_version" in imports["refit.worker"]
    graphlib.TopologicalSorter({module: found & imports.keys() - {module} for module, found in imports.items()}).prepare()
