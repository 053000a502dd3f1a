"""What stands in README.md and the pages of the clients works when it is pasted.

Every code block is in PLANS, by its page and first line: how it is run, or why it is not. Blocks are run in a network
and a mount namespace of their own, so that ports and hosts are those that the pages name.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest
from conftest import BIN, environment

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "client/CPP.md",
    "server/RUNNING.md",
    "common/adapters/families/README.md",
    "client/python/README.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "client/python/docs").glob("*.md")),
)
PACKAGE = os.environ.get("REFIT_PYTHONPATH", str(BIN.parent / "python"))
GRPCURL = os.environ.get("GRPCURL", str(ROOT / "build/tools/grpcurl"))
PATIENCE_S = 50

# Run first, to have what a block speaks of.
# In a terminal of its own: no job of this shell.
SERVICE = "(refit-server --listen 127.0.0.1:50051 &); until refit status >/dev/null 2>&1; do sleep 0.1; done\n"
VERSION = "refit push -q --synthetic gemma4_tiny --version 2\n"
TLS_SERVICE = """
refit certs certs/ --host trainer-0.example.org
refit-server --listen 0.0.0.0:50051 --tls-cert certs/server.pem --tls-key certs/server.key --tls-client-ca certs/ca.pem &
sleep 1
refit push -q -s trainer-0.example.org:50051 --tls-ca certs/ca.pem --tls-cert certs/trainer.pem --tls-key certs/trainer.key checkpoint/
"""
PYTHON_SERVICE = """
import torch, refit
from types import SimpleNamespace
service = refit.serve("127.0.0.1:50051")
model = torch.nn.Linear(4, 2)
engine = SimpleNamespace(load_weights=lambda version: None)
"""
PYTHON_WORKER = """
import threading
worker = refit.Worker("127.0.0.1:50051", install=lambda version: None)
threading.Thread(target=worker.follow, daemon=True).start()
"""
PYTHON_VERSION = (
    PYTHON_SERVICE
    + """
with refit.Publisher("127.0.0.1:50051").version(1) as v:
    v.push(model.state_dict())
"""
)


@dataclass
class Shell:
    """Pasted into bash. What goes on without end goes on in the background, and is ended at the end."""

    before: str = ""
    instead: tuple[tuple[str, str], ...] = ()  # of what is too large for a test
    after: str = ""


@dataclass
class Python:
    """Pasted into Python, behind the blocks of the page that it continues. `endless`: ended by Ctrl-C."""

    before: str = ""
    after: tuple[str, ...] = ()  # first lines of earlier blocks
    endless: bool = False


CPP = "C++: tests/consumer/page.cc compiles it"
ENGINE = "needs an engine: deploy/engine_test.sh runs the recipe"
PLANS: dict[tuple[str, str], Shell | Python | str] = {
    ("README.md", "                      refit-server, beside the trainer"): "a picture",
    ("README.md", "deploy/demo.sh"): "installs and builds; deploy/test.sh is what runs this test",
    ("README.md", "refit-server --listen 127.0.0.1:50051"): Shell(
        instead=(("gemma4_26b_a4b --layers 2", "gemma4_tiny --layers 2"), ("--experts 128", "--experts 8")),
        after="refit versions | grep committed\n",
    ),
    ("README.md", "import torch, refit"): Python(),
    ("README.md", "import torch, refit (2)"): Python(after=("import torch, refit",), endless=True),
    ("client/CPP.md", "find_package(refit"): "CMake: tests/consumer does it",
    ("client/CPP.md", "refit::ChannelOptions channel;"): CPP,
    ("client/CPP.md", "#include <refit/publisher.h>"): CPP,
    ("client/CPP.md", "#include <refit/subscriber.h>"): CPP,
    ("client/CPP.md", "#include <refit/worker.h>"): CPP,
    ("client/CPP.md", "options.hold_installs = true;"): CPP,
    ("common/adapters/families/README.md", 'name = "acme_moe"'): "a family: tests/shell/test_families.py",
    ("common/adapters/families/README.md", "refit adapters"): "the same test has the file, and the tensors",
    ("server/RUNNING.md", "listen = ["): "settings: tests/shell/test_config.py",
    ("server/RUNNING.md", "$ refit-server --config"): "a mistake: tests/shell/test_config.py",
    ("server/RUNNING.md", "refit certs certs/"): Shell(instead=(("scp -p", "ls"), (" WORKER:certs/", ""))),
    ("server/RUNNING.md", "refit follow -s trainer-0"): Shell(
        before=TLS_SERVICE, after="until test -e policy.safetensors; do sleep 0.1; done\n"
    ),
    ("client/CPP.md", "for r in 0 1 2 3 4 5 6 7; do"): Shell(
        before=SERVICE, after="refit versions | grep -E '3 +committed'\n"
    ),
    ("client/CPP.md", "refit::Mesh mesh{"): CPP,
    ("server/RUNNING.md", "refit-server --retain 0"): Shell(after="refit status\n"),
    ("server/RUNNING.md", "refit-server --listen 0.0.0.0:50051 --allow-plaintext"): Shell(
        before="mount -t tmpfs none /run && mkdir /run/refit\n",
        instead=(("refit pull", "refit push -q --synthetic gemma4_tiny --version 1 && refit pull"),),
        after="test -S /run/refit/socket.fds\n",
    ),
    ("server/RUNNING.md", "refit-server --upstream trainer-0:50051"): Shell(
        instead=(("120GiB", "1GiB"),), after="until refit status | grep 'relay .* of trainer-0'; do sleep 0.1; done\n"
    ),
    ("server/RUNNING.md", "$ refit status --tree"): "a picture of relays: tests/integration/relay_test.cc",
    ("server/RUNNING.md", "$ grpcurl -plaintext"): Shell(before=SERVICE + VERSION),
    ("client/python/README.md", "pip install"): "compiles for minutes; tests of the package run what it installs",
    ("client/python/README.md", "import refit"): Python(before=PYTHON_SERVICE + PYTHON_WORKER),
    ("client/python/README.md", "sub = refit.Subscriber("): Python(before=PYTHON_VERSION, endless=True),
    ("client/python/README.md", 'version = sub.pull("latest")'): Python(
        before=PYTHON_VERSION + 'sub = refit.Subscriber("127.0.0.1:50051")\n'
    ),
    ("client/python/docs/tensors.md", "import torch, refit"): Python(),
    ("client/python/docs/tensors.md", "mine = {"): Python(after=("import torch, refit",)),
    ("client/python/docs/tensors.md", "state = {"): Python(after=("import torch, refit",)),
    ("client/python/docs/torch.md", "from refit.integrations.torch import"): Python(
        before=PYTHON_VERSION, endless=True
    ),
    **{(page, ""): ENGINE for page in PAGES if Path(page).stem in ("nemo_rl", "sglang", "verl", "vllm")},
}


@dataclass
class Block:
    page: str
    line: int
    first: str
    text: str

    def plan(self) -> Shell | Python | str | None:
        known = [
            plan
            for (page, first), plan in PLANS.items()
            if page == self.page and (self.first.startswith(first) if not first.endswith(")") else self.first == first)
        ]
        exact = PLANS.get((self.page, self.first))
        return exact if exact is not None else known[0] if known else None


def blocks(page: str) -> list[Block]:
    found: list[Block] = []
    open_fence, text, begin = False, [], 0

    def end() -> None:
        if any(line.strip() for line in text):
            first = text[0]
            again = sum(block.first.split(" (")[0] == first for block in found)
            found.append(
                Block(page, begin, f"{first} ({again + 1})" if again else first, "\n".join(text).rstrip() + "\n")
            )
        text.clear()

    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if line.startswith("```"):
            end()
            open_fence, begin = not open_fence, number
        elif open_fence:
            text.append(line)
        elif line.startswith("    ") or (text and not line.strip()):
            begin = begin if text else number
            text.append(line[4:])
        else:
            end()
    end()
    return found


ALL = [block for page in PAGES for block in blocks(page)]


def write_checkpoint(path: Path) -> None:
    """Native tensors with the names and shapes of gemma4_tiny, in BF16 zeros."""
    sizes = {"BF16": 2, "F32": 4, "F16": 2}
    header: dict[str, object] = {}
    offset = 0
    for tensor in json.loads((ROOT / "client/native/manifests/gemma4_tiny_native_manifest.json").read_text()):
        size = sizes[tensor["dtype"]]
        for dimension in tensor["shape"]:
            size *= dimension
        header[tensor["name"]] = {
            "dtype": tensor["dtype"],
            "shape": tensor["shape"],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(offset))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "checkpoint").mkdir()
    write_checkpoint(tmp_path / "checkpoint/model.safetensors")
    write_checkpoint(tmp_path / "native.safetensors")
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost trainer-0.example.org refit.example\n")
    yield tmp_path


def isolated(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """bash in a network of its own: loopback alone, and the pages' hosts lead there."""
    inside = "ip link set lo up && mount --bind hosts /etc/hosts && exec bash -c " + shlex.quote(command)
    env = environment(
        PATH=f"{BIN}:{Path(GRPCURL).parent}:{os.environ['PATH']}", PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE="1"
    )
    return subprocess.run(
        [
            "unshare",
            *(() if os.geteuid() == 0 else ("-r",)),
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            inside,
        ],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def why_not_isolated() -> str:
    probe = subprocess.run(
        ["unshare", *(() if os.geteuid() == 0 else ("-r",)), "--net", "--mount", "ip", "link", "set", "lo", "up"],
        capture_output=True,
        text=True,
        check=False,
    )
    return probe.stderr.strip()


def script_of(block: Block, plan: Shell) -> str:
    text = re.sub(r"^\$ ", "", block.text, flags=re.M)
    if block.text.startswith("$ "):  # a session: the other lines are what it prints
        text = "".join(re.findall(r"^\$ (?:.*\\\n)*.*\n", block.text, flags=re.M)).replace("$ ", "")
    for what, instead in plan.instead:
        assert what in text, f"{what!r} is not in the block any more"
        text = text.replace(what, instead)
    text = text.replace("\\\n", " ")
    text = re.sub(r"^(refit-server .*?)(\s*#.*)?$", r"\1 & sleep 1\2", text, flags=re.M)
    text = re.sub(r"^(refit (?:follow|watch)\b.*?)(\s+#.*)?$", r"\1 & sleep 1\2", text, flags=re.M)
    return f"set -e\n{plan.before}{text}{plan.after}kill $(jobs -p) 2>/dev/null || true\nwait || true\n"


def python_of(block: Block, plan: Python) -> str:
    earlier = "".join(other.text for other in ALL if other.page == block.page and other.first in plan.after)
    ended = "import signal, threading\nthreading.Timer(2, signal.raise_signal, (signal.SIGINT,)).start()\n"
    text = block.text
    if plan.endless:
        text = (
            "try:\n" + "".join(f"    {line}\n" for line in text.splitlines()) + "except KeyboardInterrupt:\n    pass\n"
        )
        text = ended + text
    return plan.before + earlier + text.replace("refit.example:50051", "127.0.0.1:50051")


def test_every_block_has_a_plan() -> None:
    assert not [f"{block.page}:{block.line} {block.first}" for block in ALL if block.plan() is None]
    used = [block.plan() for block in ALL]
    assert not [key for key, plan in PLANS.items() if plan not in used]


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}:{block.first[:30]}")
def test_block(block: Block, folder: Path) -> None:
    plan = block.plan()
    if plan is None or isinstance(plan, str):
        pytest.skip(str(plan))
    if reason := why_not_isolated():
        pytest.skip(f"no network namespace: {reason}")
    if isinstance(plan, Python):
        probe = subprocess.run(
            [sys.executable, "-c", "import torch, refit"],
            env=environment(PYTHONPATH=PACKAGE),
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode != 0:
            pytest.skip(f"no Python package: {probe.stderr.strip().splitlines()[-1]}")
        (folder / "block.py").write_text(python_of(block, plan))
        command = f"exec {sys.executable} block.py"
    else:
        if "grpcurl" in block.text and not Path(GRPCURL).exists():
            pytest.skip("no grpcurl: deploy/get_grpcurl.sh gets it")
        command = script_of(block, plan)
    done = isolated(command, folder)
    assert done.returncode == 0, (
        f"{command}\n--- exit code {done.returncode}\n{done.stdout}\n---\n{done.stderr[-3000:]}"
    )
