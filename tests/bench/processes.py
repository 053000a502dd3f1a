"""Starts programs, exchanges lines with them, and always ends them."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ProgramFailed(Exception):
    """A program ended, or did not answer in time. The text contains its last output."""


class NotMeasured(Exception):
    """Something is not available to be measured; the text says what."""


def _die_with_driver() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """A child process that reads and answers lines. A context manager: leaving it ends the process."""

    def __init__(self, name: str, argv: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
        self.name = name
        self._words = tempfile.TemporaryFile(mode="w+", errors="replace")
        self._process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **(env or {})},
            preexec_fn=_die_with_driver,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def last_words(self) -> str:
        self._words.seek(0)
        return self._words.read().strip()[-1000:]

    def failure(self, what: str) -> ProgramFailed:
        code = self._process.poll()
        # Negative: the signal that ended it; -9 often means that memory ran out.
        ended = "" if code is None else f" with exit code {code}"
        return ProgramFailed(f"{self.name} {what}{ended}: {self.last_words() or 'it said nothing'}")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def tell(self, line: object) -> None:
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError:
            raise self.failure("ended") from None

    def hear(self, timeout: float = 300) -> list[str]:
        """The words of the process's next line."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise self.failure(f"was silent for {timeout:.0f} s") from None
        if line is None:
            self._process.wait(timeout=10)
            raise self.failure("ended")
        return line.split()

    def ask(self, line: object, timeout: float = 300) -> list[str]:
        self.tell(line)
        return self.hear(timeout)

    def wait_ready(self, timeout: float = 600) -> list[str]:
        """The words after "ready" in its first line."""
        words = self.hear(timeout)
        if not words or words[0] != "ready":
            raise self.failure(f"said {' '.join(words)!r} instead of ready")
        return words[1:]

    def output(self, timeout: float = 1800) -> str:
        """Waits for the process to end with success. Returns all lines that were not read yet."""
        self._process.stdin.close()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {timeout:.0f} s") from None
        if code != 0:
            raise self.failure("ended")
        self._reader.join()
        lines = []
        while (line := self._lines.get()) is not None:
            lines.append(line)
        return "\n".join(lines)

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads."""
        # The name may hold spaces; the fields are counted from behind it.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def peak_bytes(self) -> int:
        """The peak of resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise self.failure("has no VmHWM")

    def stop(self) -> None:
        """Ends the process: first by the end of its input, then by SIGTERM, then by SIGKILL."""
        for end in (self._process.stdin.close, self._process.terminate, self._process.kill):
            if not self.is_running():
                break
            try:
                end()
                self._process.wait(timeout=2 if end == self._process.stdin.close else 10)
            except (OSError, subprocess.TimeoutExpired):
                pass
        self._process.wait()
        self._reader.join(timeout=10)
        self._words.close()


def run(name: str, argv: Sequence[str | Path], env: dict[str, str] | None = None, timeout: float = 1800) -> str:
    """Runs a program and returns its output."""
    with Program(name, argv, env) as program:
        return program.output(timeout)
