"""A process ends in order, and soon, whatever its threads do: with its own exit code, and without a word.

REFIT_EXIT_RUNS says how often each is tried.
"""

import os
import threading
import time

import pytest

import refit
from processes import start

RUNS = int(os.environ.get("REFIT_EXIT_RUNS", "5"))

# Somewhere within what the other threads do.
WAIT = "import random\ntime.sleep(random.uniform(0.02, 0.25))\n"
FOLLOW = """
sub = refit.Subscriber(sys.argv[1], transport=sys.argv[2])
threading.Thread(target=sub.follow, args=(install,), daemon=True).start()
"""
# name: (expected exit code, program)
PROGRAMS = {
    "follow": (0, "install = lambda version: None" + FOLLOW),
    "install at work": (
        0,
        "def install(version): [bytes(t.memory) for t in version.tensors]; time.sleep(0.002)" + FOLLOW,
    ),
    "follow with a kept base": (
        0,
        "install = lambda version: None" + FOLLOW.replace("(install,)", "(install,), kwargs={'keep_base': True}"),
    ),
    "pulls with a base": (
        0,
        """
out = {"w": bytearray(1 << 20)}
def pulls(**into):
    sub, version = refit.Subscriber(sys.argv[1], transport=sys.argv[2]), None
    while True: version = sub.pull(base=version, **into)
for into in ({}, {"out": out}): threading.Thread(target=pulls, kwargs=into, daemon=True).start()
""",
    ),
    "install that takes long": (0, "def install(version): time.sleep(30)" + FOLLOW),
    "beside torch": (0, "import torch\ndef install(version): [t.sum() for _, t in version]" + FOLLOW),
    "on_error that raises": (
        0,
        """
def on_error(error): raise ValueError("of on_error")
worker = refit.Worker(sys.argv[1], install=lambda version: 1 / 0, on_error=on_error, transport=sys.argv[2])
def follow():
    while True:
        try: worker = refit.Worker(sys.argv[1], install=lambda v: 1 / 0, on_error=on_error); worker.follow()
        except ValueError: pass
threading.Thread(target=follow, daemon=True).start()
""",
    ),
    "pulls and watches": (
        0,
        """
def pulls():
    sub = refit.Subscriber(sys.argv[1], transport=sys.argv[2])
    while True: sub.pull(progress=lambda done, total: None)
def watches():
    for _ in refit.Subscriber(sys.argv[1]).watch(): pass
for work in (pulls, pulls, watches): threading.Thread(target=work, daemon=True).start()
""",
    ),
    "pushes": (
        0,
        """
def pushes():
    number = time.time_ns()
    with refit.Publisher(sys.argv[1], adapter="identity", model=str(os.getpid())) as publisher:
        while True:
            number += 1
            push(publisher, number)
threading.Thread(target=pushes, daemon=True).start()
""",
    ),
    "connecting": (
        0,
        """
def connects():
    while True:
        try: refit.Subscriber("127.0.0.1:1", connect_timeout=30)
        except refit.Unavailable: pass
threading.Thread(target=connects, daemon=True).start()
""",
    ),
    "a service, alive": (
        0,
        """
service = refit.serve(memory="64MiB", metrics="127.0.0.1:0")
def pushes():
    number = 0
    while True:
        number += 1
        with service.version(number, adapter="identity") as version: version.push({"w": row(1)})
threading.Thread(target=pushes, daemon=True).start()
threading.Thread(target=refit.Subscriber(service.address).follow, args=(lambda version: None,), daemon=True).start()
""",
    ),
    "an exception": (1, "install = lambda version: None" + FOLLOW + WAIT + "raise SystemExit(1)\n"),
    "asyncio, left by an exception": (
        1,
        """
async def main():
    async with refit.aio.Subscriber(sys.argv[1], transport=sys.argv[2]) as sub:
        following = asyncio.create_task(sub.follow(lambda version: None))
        await asyncio.sleep(0.1)
        raise SystemExit(1)
asyncio.run(main())
""",
    ),
    "asyncio, its loop just left": (
        0,
        """
async def install(version): await asyncio.sleep(0.001)
async def main():
    sub = await refit.aio.Subscriber(sys.argv[1], transport=sys.argv[2]).__aenter__()
    asyncio.get_running_loop().create_task(sub.follow(install))
    await asyncio.sleep(0.1)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
    ),
    "atexit's functions": (
        0,
        """
import atexit
sub = refit.Subscriber(sys.argv[1], transport=sys.argv[2])
service = refit.serve(memory="64MiB")
atexit.register(service.close)
atexit.register(lambda: sub.pull())                     # before ours: works as ever
sub.pull()
""",
    ),
    "pulled, and kept": (
        0,
        "pulled = refit.Subscriber(sys.argv[1], transport=sys.argv[2]).pull(); views = dict(pulled)\n",
    ),
}


@pytest.fixture(scope="module")
def busy():
    """A service with a hundred versions a second."""
    over = threading.Event()
    with refit.serve(memory="256MiB") as service:

        def train():
            number = 0
            while not over.is_set():
                number += 1
                with service.version(number, adapter="identity") as version:
                    version.push({"w": memoryview(bytes(1 << 20))})
                over.wait(0.01)

        trainer = threading.Thread(target=train)
        trainer.start()
        yield service.address
        over.set()
        trainer.join()


@pytest.mark.parametrize("name", PROGRAMS)
def test_ends(busy, name):
    expected, program = PROGRAMS[name]
    if "import torch" in program:
        pytest.importorskip("torch")
    slowest = 0
    for i in range(RUNS):
        waits = "" if "raise" in program and expected else WAIT
        process = start(program + waits + "print('ends', flush=True)\n", busy, ["auto", "wire"][i % 2])
        out = process.stdout.readline()  # nothing, where an exception ends it
        ends = time.monotonic()
        rest, err = process.communicate(timeout=30)
        slowest = max(slowest, time.monotonic() - ends)
        err = "" if expected and "Error" not in err else err
        assert (process.returncode, rest, err) == (expected, "", ""), (i, process.returncode, out, err[-2000:])
    print(f"{name}: {RUNS} runs, slowest end {slowest:.2f} s")
    assert slowest < (3 if RUNS < 20 else 1.5)  # other tests run beside this one
