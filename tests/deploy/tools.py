"""Where the tools of these tests are, and what the chart renders."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(os.environ.get("REFIT_BIN", ROOT / "build/release/bin"))
HELM = ROOT / "build/tools/helm"
GRPCURL = ROOT / "build/tools/grpcurl"
CHART = ROOT / "deploy/helm/refit"
EXAMPLES = ROOT / "deploy/helm/examples"
# How much longer than an optimised build these programs may take: sanitizers slow them down.
SLOWNESS = float(os.environ.get("REFIT_SLOWNESS", "1"))
KUBERNETES = "1.33"

Object = dict[str, Any]


def helm(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def render(release: str, chart: Path, *arguments: str | Path) -> list[Object]:
    done = helm("template", release, chart, "--kube-version", KUBERNETES, *arguments)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def objects(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found is not None]


def fleet(*settings: str) -> list[Object]:
    """The example with a relay a node: the chart, and the objects beside it."""
    example = EXAMPLES / "fleet"
    rendered = render("refit", CHART, "-n", "rl", "-f", example / "values.yaml", *settings)
    return rendered + [
        found for name in ("roles", "workers") for found in objects((example / f"{name}.yaml").read_text())
    ]


def one_trainer(folder: Path, *settings: str) -> list[Object]:
    """The example with sidecars, a chart of its own; its dependency is fetched as the README says."""
    copy = folder / "helm/examples/one_trainer"
    shutil.copytree(EXAMPLES / "one_trainer", copy, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    if not (folder / "helm/refit").exists():
        (folder / "helm/refit").symlink_to(CHART)
    fetched = helm("dependency", "build", copy, cwd=folder)
    assert fetched.returncode == 0, fetched.stderr
    return render("loop", copy, "-n", "rl", *settings)
