"""What the service is compared with. ALL: by name, a function that starts a contender and returns its transfer.

`start(stack, setup, directory, total)` brings everything up, registers its end with the stack, and returns a function
that moves `total` bytes into the receiver's warm memory and tells the seconds. It raises NotMeasured, with the reason,
if something is not installed. `directory` is scratch space that is empty.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import certificates
from baselines import nginx
from processes import NotMeasured, Program, run
from refit import REPOSITORY, Setup
from rounds import Transfer

HERE = Path(__file__).resolve().parent
VENV_PYTHON = REPOSITORY / "build" / "bench-venv" / "bin" / "python"
# What refit::TuneAllocatorForBulkData sets, as glibc reads it from the environment.
TUNED_ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "2",
}


def _start_pair(stack: ExitStack, name: str, argv: list, total: int, env: dict[str, str] | None = None) -> Transfer:
    """A server that tells its port, and a client that answers each line with seconds."""
    argv = [*argv, "--bytes", str(total)]
    server = stack.enter_context(Program(f"{name}, server", [*argv, "--serve"], env))
    port = server.wait_ready(timeout=60)[0]
    client = stack.enter_context(Program(f"{name}, client", [*argv, "--port", port], env))
    client.wait_ready(timeout=60)
    return lambda: float(client.ask("go")[0])


def _need_modules(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise NotMeasured(f"Python module {module} is not installed")


def start_raw_tcp(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    return _start_pair(stack, "raw TCP", [setup.binaries / "bench-raw-tcp"], total)


def start_grpc_plain(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    return _start_pair(stack, "plain gRPC", [setup.binaries / "bench-grpc-plain"], total)


def start_grpc_tuned(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    return _start_pair(stack, "plain gRPC", [setup.binaries / "bench-grpc-plain"], total, TUNED_ALLOCATOR)


def start_grpc_tls(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    argv = [setup.binaries / "bench-grpc-plain", "--tls-dir", certificates.make(setup.binaries, directory / "tls")]
    return _start_pair(stack, "plain gRPC, mutual TLS", argv, total, TUNED_ALLOCATOR)


def start_grpc_python(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    _need_modules("grpc", "grpc_tools")
    run(
        "protoc",
        [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={HERE}", f"--python_out={directory}"]
        + [f"--grpc_python_out={directory}", "grpc_plain.proto"],
    )
    return _start_pair(
        stack, "gRPC in Python", [sys.executable, HERE / "grpc_plain.py", "--generated", directory], total
    )


def start_gloo(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    _need_modules("torch")
    argv = [sys.executable, HERE / "gloo.py", "--bytes", str(total), "--rendezvous", directory / "gloo", "--rank"]
    env = {"GLOO_SOCKET_IFNAME": "lo"}
    stack.enter_context(Program("gloo, rank 0", [*argv, "0"], env))
    receiver = stack.enter_context(Program("gloo, rank 1", [*argv, "1"], env))
    receiver.wait_ready(timeout=60)
    return lambda: float(receiver.ask("go")[0])


def start_flight(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    if not VENV_PYTHON.exists():
        raise NotMeasured("pyarrow is not installed in build/bench-venv")
    return _start_pair(stack, "Arrow Flight", [VENV_PYTHON, HERE / "flight.py"], total)


def start_nginx(stack: ExitStack, setup: Setup, directory: Path, total: int) -> Transfer:
    for program in ("nginx", "curl"):
        if shutil.which(program, path=nginx.PATH) is None:
            raise NotMeasured(f"{program} is not installed")
    return nginx.start(stack, total)


ALL = {
    "raw TCP": start_raw_tcp,
    "plain gRPC, C++": start_grpc_plain,
    "plain gRPC, C++, tuned malloc": start_grpc_tuned,
    "plain gRPC, C++, tuned malloc, mTLS": start_grpc_tls,
    "plain gRPC, Python": start_grpc_python,
    "torch.distributed, gloo": start_gloo,
    "Arrow Flight, Python": start_flight,
    "nginx and curl": start_nginx,
}
