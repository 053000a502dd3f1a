"""Python programs of their own, for what a test's process could not survive."""

import os
import signal
import subprocess
import sys
import textwrap

HEAD = """
import asyncio, faulthandler, gc, os, signal, sys, threading, time
import refit, refit.aio

def row(value, count=1 << 20):
    return memoryview(bytes([value]) * count)   # 1 MiB of bytes

def push(publisher, number, value=1, count=1 << 20):
    with publisher.version(number) as version:
        version.push({"w": row(value, count)})
"""


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def start(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-B", "-c", HEAD + textwrap.dedent(code), *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(code, *arguments, timeout=60):
    """(exit code, stdout, stderr). One that hangs is killed, and fails the test."""
    process = start(code, *arguments)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still there after {timeout} s; stdout: {out[-2000:]}; stderr: {err[-2000:]}") from None
    return process.returncode, out, err


def stop(process):
    """Stops it (SIGSTOP), and returns once each of its threads stands still: they stop one by one."""
    os.kill(process.pid, signal.SIGSTOP)
    while any(_state(process.pid, thread) != "T" for thread in os.listdir(f"/proc/{process.pid}/task")):
        os.sched_yield()


def _state(pid, thread):
    with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0]
