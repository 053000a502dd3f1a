"""README's trainer and worker, as a page gives them, in this process and this environment.

readme.py README.md
"""

import re
import signal
import sys
import threading
from pathlib import Path

page = Path(sys.argv[1]).read_text()
trainer, worker = re.findall(r"```python\n(.*?)```", page, re.S)
scope = {}
exec(compile(trainer, "README's trainer", "exec"), scope)
# What follows versions goes on until Ctrl-C, which shells have jobs in the background ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(3, signal.raise_signal, (signal.SIGINT,)).start()
try:
    exec(compile(worker, "README's worker", "exec"), scope)
except KeyboardInterrupt:
    pass
installed = scope["sub"].pull("latest")
names = [name for name, _ in installed]
assert [name.rsplit(".", 2)[-2:] for name in names] == [["experts", "down_proj"], ["router", "per_expert_scale"]], names
print(f"README's trainer and worker: version 42 has {len(names)} tensors")
