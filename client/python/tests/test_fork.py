"""A process that forks: the child uses nothing of its parent's, ends nothing of it, and says so at once."""

import pytest

from processes import run

# Forks for each way in which a child may go on, and looks whether the parent does. Times are generous: what is looked for
# is that nothing hangs.
FORKS = """
def child(act):
    "What became of it: (exit code, seconds)."
    sys.stdout.flush()
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        code = 70
        try:
            code = act() or 0
        except SystemExit:
            raise
        except BaseException as error:
            print("child raised", type(error).__name__, error, flush=True)
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begin

def refuses(call):
    "The child is told at once, and what to do."
    def act():
        try:
            call()
        except refit.FailedPrecondition as error:
            return 0 if "fork" in str(error) and "spawn" in str(error) else 71
        return 72
    return act
"""

CLIENT = (
    FORKS
    + """
address, transport = sys.argv[1:]
sub = refit.Subscriber(address, transport=transport)
publisher = refit.Publisher(address, adapter="identity", model="other", transport=transport)
worker = refit.Worker(address, install=lambda version: None, transport=transport, keep_base=True)
push(publisher, 1)
pulled = sub.pull()
worker.refit()
under_way = publisher.version(2, declare={"w": ("u8", [1 << 20])})

def drop():
    global sub, publisher, worker, pulled, under_way
    del sub, publisher, worker, pulled, under_way
    gc.collect()

acts = {
    "a new connection": refuses(lambda: refit.Subscriber(address, transport=transport)),
    "a new worker": refuses(lambda: refit.Worker(address, install=print)),
    "a new service": refuses(refit.serve),
    "pull": refuses(sub.pull),
    "pull with a base": refuses(lambda: sub.pull(base=pulled)),
    "watch": refuses(lambda: next(sub.watch())),
    "push": refuses(lambda: push(publisher, 9)),
    "push of what was open": refuses(lambda: under_way.push({"w": row(1)})),
    "abort": refuses(lambda: publisher.abort(2, "no")),
    "wait": refuses(lambda: publisher.wait_for_workers(1)),
    "refit": refuses(worker.refit),
    "follow": refuses(worker.follow),
    "wait for": refuses(lambda: worker.wait_for(2)),
    "stop": worker.stop,
    "read": lambda: 0 if bytes(pulled.tensors[0].memory) == bytes(row(7, 4 << 20)) else 73,
    "drop": drop,
    "collect": lambda: gc.collect() and 0,
    "exit": lambda: sys.exit(0),
}
for name, act in acts.items():
    code, seconds = child(act)
    assert code == 0, (name, code)
    assert seconds < 5, (name, seconds)
    assert sub.pull(idle_timeout=5, resume_within=3, base=pulled).number == 1, name
    assert bytes(pulled.tensors[0].memory) == bytes(row(7, 4 << 20)), name
under_way.push({"w": row(2)})
under_way.commit()
assert worker.installed == 1
print("all", len(acts), "acts")
"""
)


@pytest.fixture
def large(service):
    """A service with a version that is mapped by whoever can."""
    with service.version(1, adapter="identity") as version:
        version.push({"w": memoryview(bytes([7]) * (4 << 20))})
    return service


def test_child_of_a_client(large, transport):
    code, out, err = run(CLIENT, large.address, transport)
    assert (code, err) == (0, "") and "all 18 acts" in out, (code, out, err)


def test_child_of_a_service():
    code, out, err = run(
        FORKS
        + """
service = refit.serve(memory="256MiB", metrics="127.0.0.1:0")
with service.version(1, adapter="identity") as version:
    version.push({"w": row(7)})
under_way = service.version(2, adapter="identity", declare={"w": ("u8", [1 << 20])})
half = service.version(3, model="half", adapter="identity", declare={"w": ("u8", [1 << 20])})

def drop():
    global service, under_way, half
    del service, under_way, half
    gc.collect()

acts = {
    "publish": refuses(lambda: service.version(9, adapter="identity", declare={"w": ("u8", [1])})),
    "push": refuses(lambda: under_way.push({"w": row(8)})),
    "commit": refuses(half.commit),
    "close": service.close,
    "drop": drop,
    "exit": lambda: sys.exit(0),
}
for name, act in acts.items():
    code, seconds = child(act)
    assert code == 0 and seconds < 5, (name, code, seconds)
    assert refit.Subscriber(service.address, connect_timeout=3).pull(idle_timeout=5).number == 1, name
under_way.push({"w": row(8)})
under_way.commit()
assert refit.Subscriber(service.address).pull().number == 2
service.close()
print("all", len(acts), "acts")
"""
    )
    assert (code, err) == (0, "") and "all 6 acts" in out, (code, out, err)


def test_mapped_tensors_keep_their_values_in_a_child():
    """The parent gives the memory back, and the service would use it again for the versions that follow."""
    code, out, err = run(
        """
service = refit.serve(memory="256MiB", retain=1)
def publish(number):
    with service.version(number, adapter="identity") as version:
        version.push({"w": row(number, 8 << 20)})
publish(1)
pulled = refit.Subscriber(service.address, transport="shared_memory").pull()
told, tell = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(tell)
    os.read(told, 1)                                # until the parent has gone on
    os._exit(0 if bytes(pulled.tensors[0].memory) == bytes(row(1, 8 << 20)) else 1)
del pulled
gc.collect()
for number in range(2, 12):
    publish(number)
    assert bytes(refit.Subscriber(service.address).pull().tensors[0].memory) == bytes(row(number, 8 << 20))
os.close(tell)
_, status = os.waitpid(pid, 0)
print("child", os.waitstatus_to_exitcode(status))
"""
    )
    assert (code, out, err) == (0, "child 0\n", ""), (code, out, err)


def test_while_other_threads_are_within_calls(large):
    code, out, err = run(
        FORKS
        + """
address = sys.argv[1]
publisher = refit.Publisher(address, adapter="identity", model="busy")
subscriber = refit.Subscriber(address, model="busy")
push(publisher, 1, 1)
over = False
failed = []
def again_and_again(act):
    def work():
        while not over:
            try:
                act()
            except BaseException as error:
                failed.append(repr(error))
                return
    threads.append(threading.Thread(target=work))
    threads[-1].start()
threads = []
numbers = iter(range(2, 1 << 30))
installed = []
again_and_again(lambda: push(publisher, next(numbers), 1, 3 << 20))
again_and_again(lambda: subscriber.pull())
again_and_again(lambda: refit.Subscriber(address, model="busy", transport="wire").pull())
worker = refit.Worker(address, model="busy", install=lambda version: installed.append(version.number))
threads.append(threading.Thread(target=worker.follow))
threads[-1].start()
def wait():
    try: worker.wait_for(1 << 40, timeout=1000)
    except refit.Cancelled: pass
threads.append(threading.Thread(target=wait))
threads[-1].start()

def drop():
    global publisher, subscriber, worker
    del publisher, subscriber, worker
    gc.collect()

for i in range(30):
    before = len(installed)
    code, seconds = child([drop, lambda: sys.exit(0), refuses(subscriber.pull)][i % 3])
    assert code == 0 and seconds < 5, (i, code, seconds)
    worker.wait_for(worker.installed + 1, timeout=10) if worker.installed else None
over = True
worker.stop()
for thread in threads:
    thread.join()
assert not failed and installed, (failed, installed)
print("done")
""",
        large.address,
    )
    assert (code, out, err) == (0, "done\n", ""), (code, out[-2000:], err)


@pytest.mark.parametrize("thread", ["main", "other"])
def test_within_a_callback(large, thread):
    """The child of a fork within `install` falls out of follow(), which works on in the parent."""
    code, out, err = run(
        """
address, thread = sys.argv[1:]
parent = os.getpid()
children = []
def install(version):
    pid = os.fork()
    if pid:
        children.append(pid)
worker = refit.Worker(address, install=install)
def follow():
    try:
        worker.follow(lambda: True)
    except refit.FailedPrecondition as error:
        os._exit(3 if os.getpid() != parent and "fork" in str(error) else 4)
    if os.getpid() != parent:
        os._exit(5)
if thread == "main":
    follow()
else:
    other = threading.Thread(target=follow)
    other.start()
    other.join()
_, status = os.waitpid(children[0], 0)
print("child", os.waitstatus_to_exitcode(status), "parent has", worker.installed)
""",
        large.address,
        thread,
    )
    assert (code, out, err) == (0, "child 3 parent has 1\n", ""), (code, out, err)


def test_child_of_a_process_that_has_only_imported_refit(large):
    code, out, err = run(
        """
if os.fork() == 0:
    pulled = refit.Subscriber(sys.argv[1]).pull()
    with refit.serve() as service, service.version(1, adapter="identity") as version:
        version.push({"w": row(1)})
    sys.exit(0 if pulled.number == 1 else 1)
_, status = os.wait()
# And the parent can go on to do so itself.
print("child", os.waitstatus_to_exitcode(status), "parent", refit.Subscriber(sys.argv[1]).pull().number)
""",
        large.address,
    )
    assert (code, out, err) == (0, "child 0 parent 1\n", ""), (code, out, err)


@pytest.mark.parametrize("method, expected", [("fork", "FailedPrecondition"), ("spawn", "1"), ("forkserver", "1")])
def test_multiprocessing(large, method, expected, tmp_path):
    """Of a parent that is connected: engines' and PyTorch's ways to start their workers."""
    module = tmp_path / "workers_of_this_test.py"
    module.write_text(
        """
import refit

def pull(address):
    try:
        return str(refit.Subscriber(address).pull().number)
    except refit.RefitError as error:
        return type(error).__name__
"""
    )
    code, out, err = run(
        """
import multiprocessing
address, method, folder = sys.argv[1:]
sys.path.insert(0, folder)
import workers_of_this_test
sub = refit.Subscriber(address)
if __name__ == "__main__":
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(sorted(set(pool.map(workers_of_this_test.pull, [address] * 4))))
    print(sub.pull().number)
""",
        large.address,
        method,
        tmp_path,
    )
    assert (code, out, err) == (0, f"['{expected}']\n1\n", ""), (code, out, err)


def test_data_loader_workers(large):
    pytest.importorskip("torch")
    code, out, err = run(
        """
import torch
class Weights(torch.utils.data.Dataset):
    def __init__(self, address):
        self.sub = refit.Subscriber(address)
        self.weights = self.sub.pull()["w"]
    def __len__(self): return 8
    def __getitem__(self, i): return int(self.weights[i << 18])
if __name__ == "__main__":
    data = Weights(sys.argv[1])
    for epoch in range(2):
        loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
        assert [int(v) for batch in loader for v in batch] == [7] * 8
        assert data.sub.pull().number == 1
    print("done")
""",
        large.address,
    )
    assert (code, out) == (0, "done\n"), (code, out, err)
