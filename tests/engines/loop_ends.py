"""The example of a whole loop: it does what it says, and nothing of it stays, however it ends."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any, Callable, List

import pytest

for package in ("vllm", "nemo_automodel"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: deploy/get_engine.sh", allow_module_level=True)

ROOT = pathlib.Path(__file__).parents[2]
LOOP = ROOT / "deploy" / "examples" / "loop" / "loop.py"
PATIENCE = 300.0  # seconds, for a start on busy cores


class Loop:
    """The script, in a process of its own, and the engine that it starts, which leads a session."""

    def __init__(self, log: pathlib.Path, *options: str):
        faults = str(ROOT / "tests" / "engines" / "vllm_cpu_faults")
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), faults]))
        self.log = log
        with log.open("w") as output:
            command = [sys.executable, "-B", "-W", "ignore", str(LOOP), *options]
            self.process = subprocess.Popen(
                command, env=dict(os.environ, PYTHONPATH=path), stdout=output, stderr=output
            )
        self.engine = 0

    def wait_for(self, is_so: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def wait_for_engine(self) -> None:
        """Until it has been started: it is the child that leads a session."""
        self.wait_for(self._find_engine)

    def _find_engine(self) -> int:
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.engine = next((int(child) for child in children if os.getsid(int(child)) == int(child)), 0)
        return self.engine

    def wait_for_step(self, number: int) -> None:
        self.wait_for(lambda: any(line.split()[:1] == [str(number)] for line in self.log.read_text().splitlines()))

    def engine_processes(self) -> List[int]:
        return [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if self._is_engine(entry)]

    def _is_engine(self, entry: pathlib.Path) -> bool:
        try:
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:  # no process, or one that has just ended
            return False
        return int(session) == self.engine and state != "Z"


@pytest.fixture
def loop(tmp_path: pathlib.Path) -> Any:
    made = Loop(tmp_path / "log")
    yield made
    made.process.kill()
    made.process.wait()


def interrupt(loop: Loop) -> None:
    loop.process.send_signal(signal.SIGINT)


def kill_part_of_the_engine(loop: Loop) -> None:
    os.kill(max(loop.engine_processes()), signal.SIGKILL)


def kill_the_script(loop: Loop) -> None:
    loop.process.kill()


def test_it_learns_and_ends(loop: Loop) -> None:
    loop.wait_for_engine()
    assert loop.process.wait(PATIENCE) == 0, loop.log.read_text()[-3000:]
    assert loop.log.read_text().endswith("The engine serves version 10, as the trainer has it.\n")
    assert loop.engine_processes() == []


@pytest.mark.parametrize("end", [interrupt, kill_part_of_the_engine, kill_the_script], ids=lambda end: end.__name__)
def test_nothing_stays(end: Callable[[Loop], None], loop: Loop) -> None:
    loop.wait_for_engine()
    loop.wait_for_step(1)
    assert len(loop.engine_processes()) > 1
    end(loop)
    assert loop.process.wait(60) != 0
    deadline = time.monotonic() + 30  # without the script, the engine ends by itself
    while loop.engine_processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert loop.engine_processes() == []
