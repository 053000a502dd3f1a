"""All ranks of an engine take a version, or none does. For the plugs of engines whose workers pull one by one.

Votes go through the store of torch.distributed's default group. A collective would not do: one that a rank never joins
would stay in the engine's queue, and would be matched with the engine's next one. The store also decides, so a rank
that gives up and a rank that is late get the same answer.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

from refit.errors import DeadlineExceeded, FailedPrecondition, RefitError
from refit.integrations.shared.failures import told

Problems = Dict[int, str]  # what went wrong, by rank

_ABSENT = b"-"  # no value of a key
_SILENT = "no answer"
UNTOUCHED = "the engine's weights are untouched; send the update again"
_POLL_SECONDS = 0.01
_LONGEST_WORDS = 2000


@dataclass
class Vote:
    """Of one rank, in all_or_none().

    Attributes:
        subject, deadline: as settle()'s.
    """

    subject: str = ""
    deadline: Optional[float] = None


class Agreement:
    """One per engine on each of its ranks; it may be made anew between two updates. Not thread-safe.

    The store is in the process of rank 0: while that process is stopped, all ranks wait for it.
    """

    def __init__(self, groups: Sequence[Any], deadline: float):
        """
        Args:
            groups: process groups of torch.distributed that this rank is in. They vote one after another, so that with
                those for tensor and pipeline parallelism every rank hears of every other. One group of all ranks is
                better, where there is one. None and groups of one rank are passed over.
            deadline: seconds that one settle() takes at most, whatever the others do.
        """
        self._rounds = [_Rounds(ranks) for ranks in map(_ranks_of, groups) if len(ranks) > 1]
        self._deadline = deadline

    @contextmanager
    def all_or_none(self, *, deadline: Optional[float] = None, way_out: str = UNTOUCHED) -> Iterator[Vote]:
        """What fails in the block on any rank fails on all, as settle() has it. The block may fill in the vote."""
        vote = Vote(deadline=deadline)
        failure: Optional[BaseException] = None
        try:
            yield vote
        except BaseException as error:
            failure = error
        self.settle(failure, vote.subject, deadline=vote.deadline, way_out=way_out)

    def settle(
        self,
        failure: Optional[BaseException],
        subject: str = "",
        *,
        deadline: Optional[float] = None,
        way_out: str = UNTOUCHED,
    ) -> None:
        """Returns if no rank has failed. Each rank calls this as often as the others: once per update, after its pull
        and before it touches a weight, and once more after its load where the others must know how that went.

        Args:
            failure: what went wrong on this rank, if anything did.
            subject: what this rank is about to load, such as "version 42": ranks with different ones do not agree.
            deadline: of this update, in the place of the usual one.
            way_out: how the error ends.
        Raises:
            BaseException: this rank's own failure, as it was given.
            FailedPrecondition: naming the other ranks that failed, and why.
            DeadlineExceeded: naming the ranks that did not answer in time.
        """
        seconds = self._deadline if deadline is None else deadline
        begin = time.monotonic()
        problems: Problems = {}
        for index, rounds in enumerate(self._rounds):
            if failure is not None:
                problems[rounds.rank] = told(failure)[:_LONGEST_WORDS]
            until = begin + seconds * (index + 1) / len(self._rounds)
            problems = rounds.settle(problems, subject, until)
        if failure is not None:
            raise failure
        if problems:
            raise _error(problems, seconds, way_out)


class _Rounds:
    """Votes of the same ranks, one round after another. A round has these keys in the store: a vote of each rank, and
    the decision. A further key says which round is open, for a rank that has missed one."""

    def __init__(self, ranks: Sequence[int]):
        import torch.distributed as dist

        self._store = dist.distributed_c10d._get_default_store()
        self._ranks = ranks
        self.rank = dist.get_rank()
        self._prefix = "refit/agreement/" + "-".join(map(str, ranks))
        self._next = 0

    def settle(self, problems: Problems, subject: str, until: float) -> Problems:
        """What is wrong on any of the ranks; the same on all ranks that get an answer. {}: all go on."""
        number = max(self._next, int(self._read(self._open_key) or 0))
        self._next = number + 1
        vote = {"problems": problems, "subject": subject}
        self._store.set(self._vote_key(number, self.rank), json.dumps(vote))
        decision = self._decide(number, _verdict(self._votes(number, until)))
        self._store.compare_set(self._open_key, str(number) if number else "", str(number + 1))
        if not decision:
            self._forget(number - 1)
        return decision

    def _votes(self, number: int, until: float) -> Dict[int, Any]:
        """By rank; None for one that has not voted in time."""
        return {rank: self._vote(number, rank, until) for rank in self._ranks}

    def _vote(self, number: int, rank: int, until: float) -> Any:
        while True:
            value = self._read(self._vote_key(number, rank))
            if value is not None:
                return json.loads(value)
            if time.monotonic() >= until:
                return None
            time.sleep(_POLL_SECONDS)

    def _decide(self, number: int, problems: Problems) -> Problems:
        """The decision of the first rank that makes one; the others take it over."""
        decided = self._store.compare_set(self._decision_key(number), "", json.dumps(problems))
        return {int(rank): words for rank, words in json.loads(decided).items()}

    def _forget(self, number: int) -> None:
        """Once all ranks have voted in the round after, none reads this one's keys any more."""
        for key in (self._vote_key(number, self.rank), self._decision_key(number)):
            self._store.delete_key(key)

    def _read(self, key: str) -> Optional[bytes]:
        """Without waiting for it, unlike the store's get()."""
        value = self._store.compare_set(key, _ABSENT.decode(), _ABSENT.decode())
        return None if value == _ABSENT else value

    @property
    def _open_key(self) -> str:
        return f"{self._prefix}/open"

    def _vote_key(self, number: int, rank: int) -> str:
        return f"{self._prefix}/{number}/{rank}"

    def _decision_key(self, number: int) -> str:
        return f"{self._prefix}/{number}/decision"


def _ranks_of(group: Any) -> List[int]:
    if group is None:
        return []
    import torch.distributed as dist

    return list(dist.distributed_c10d.get_process_group_ranks(group))


def _verdict(votes: Dict[int, Any]) -> Problems:
    problems: Problems = {}
    for rank, vote in votes.items():
        if vote is None:
            problems.setdefault(rank, _SILENT)
        else:
            problems.update({int(other): words for other, words in vote["problems"].items()})
    if not problems and len({vote["subject"] for vote in votes.values()}) > 1:
        problems = {rank: f"it has {vote['subject'] or 'something unnamed'}" for rank, vote in votes.items()}
    return problems


def _error(problems: Problems, seconds: float, way_out: str) -> RefitError:
    told = "; ".join(f"rank {rank}: {words}" for rank, words in sorted(problems.items()))
    kind = DeadlineExceeded if _SILENT in problems.values() else FailedPrecondition
    return kind(f"not all ranks of the engine can load it within {seconds:g} s: {told}; {way_out}")
