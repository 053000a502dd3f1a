"""refit.integrations.shared.agreement: ranks in processes of their own, with gloo."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, List

import pytest
from integrations_support import torch
from processes import start

from refit.integrations.shared.agreement import Agreement

if not torch.distributed.is_available():
    pytest.skip("this torch is built without torch.distributed", allow_module_level=True)

DEADLINE = 2.0

# Arguments: rank, world, port, groups, steps. A step is, by rank: "" (all well), "absent", "late", or what went wrong;
# after a colon, the subject. Prints [kind, message, seconds] of each step.
PROGRAM = """
import datetime, json, torch.distributed as dist
from refit.integrations.shared.agreement import Agreement
rank, world = int(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[3]}", rank=rank, world_size=world)
made = [(dist.new_group(ranks, backend="gloo"), ranks) for ranks in json.loads(sys.argv[4])]
mine = [group for group, ranks in made if rank in ranks]
deadline = float(sys.argv[6])
agreement = Agreement(mine, deadline)
said = []
for step in json.loads(sys.argv[5]):
    dist.barrier()
    failure, _, subject = step.get(str(rank), "").partition(":")
    if failure == "late":
        time.sleep(deadline * 2)
    begin, kind, message = time.monotonic(), "", ""
    try:
        if failure == "restarted":
            agreement = Agreement(mine, deadline)
        if failure != "absent":
            agreement.settle(refit.NotFound(failure) if failure not in ("", "late", "restarted") else None, subject)
    except refit.RefitError as error:
        kind, message = type(error).__name__, str(error)
    said.append([kind, message, time.monotonic() - begin])
dist.barrier()
print(json.dumps(said))
"""


def settle(world: int, groups: List[List[int]], *steps: Dict[int, str]) -> List[List[Any]]:
    """[rank][step] -> [kind, message, seconds]."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = (port, json.dumps(groups), json.dumps(steps), DEADLINE)
    running = [start(PROGRAM, rank, world, *given) for rank in range(world)]
    said = []
    try:
        for process in running:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            said.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert all(seconds < DEADLINE + 2 for steps_of in said for _, _, seconds in steps_of), said
    return said


def test_two_ranks_load_together_or_not_at_all() -> None:
    fine: Dict[int, str] = {}
    steps = [
        fine,
        {1: "no such version"},
        fine,
        {1: "absent"},
        fine,  # the rank that missed one is in step again, and the group as it was
        {1: "late"},
        fine,
        {0: ":version 41", 1: ":version 42"},
        {0: "restarted", 1: "restarted"},
        {0: "one", 1: "other"},
        fine,
    ]
    zero, one = settle(2, [[0, 1]], *steps)
    for rank in (zero, one):
        assert [rank[step][0] for step in (0, 2, 4, 6, 8, 10)] == [""] * 6, rank
    assert zero[1][0] == "FailedPrecondition" and "rank 1: NOT_FOUND: no such version" in zero[1][1]
    assert "untouched" in zero[1][1]
    assert one[1][:2] == ["NotFound", "NOT_FOUND: no such version"]
    assert zero[3][0] == "DeadlineExceeded" and "rank 1: no answer" in zero[3][1] and zero[3][2] >= DEADLINE
    assert zero[5][0] == one[5][0] == "DeadlineExceeded"
    assert zero[7][0] == one[7][0] == "FailedPrecondition" and "rank 0: it has version 41" in one[7][1]
    assert zero[9][1] == "NOT_FOUND: one" and one[9][1] == "NOT_FOUND: other"


def test_word_of_a_rank_reaches_all_of_tensor_and_pipeline_parallelism() -> None:
    groups = [[0, 1], [2, 3], [0, 2], [1, 3]]
    said = settle(4, groups, {}, {3: "no such version"}, {}, {3: "absent"}, {})
    for rank in said:
        assert [rank[step][0] for step in (0, 2, 4)] == ["", "", ""]
    for rank in said[:3]:
        assert rank[1][0] == "FailedPrecondition" and "rank 3: NOT_FOUND: no such version" in rank[1][1]
        assert rank[3][0] == "DeadlineExceeded" and "rank 3: no answer" in rank[3][1]
    assert said[3][1][0] == "NotFound"


def test_alone_nothing_is_asked() -> None:
    Agreement([], 1.0).settle(None)
    Agreement([None], 1.0).settle(None)
    failure = KeyError("w")
    with pytest.raises(KeyError) as raised:
        Agreement([], 1.0).settle(failure)
    assert raised.value is failure
