"""refit.integrations.shared.going_back: what becomes of a model whose load fails in the middle."""

from __future__ import annotations

from typing import List, Optional

import pytest

import refit
from refit.integrations.shared.going_back import Former, GoingBack


class Model:
    def __init__(self) -> None:
        self.has = 1
        self.torn: List[str] = []
        self.going_back = GoingBack("{} is in use again", "it is torn", self.torn.append)

    def load(self, number: int, failure: Optional[BaseException] = None) -> None:
        self.has = number
        if failure is not None:
            raise failure

    def update(self, failure: Optional[BaseException], former: Optional[Former]) -> None:
        self.going_back.load(2, lambda: self.load(2, failure), former)


def test_a_load_that_ends_well_asks_nothing() -> None:
    model = Model()
    model.update(None, None)
    assert model.has == 2 and model.torn == []


def test_the_former_version_comes_back() -> None:
    model = Model()
    failure = refit.InvalidArgument("tensor w: too long", "w")
    words = "version 2: its load failed in the middle: .*tensor w: too long; version 1 is in use again"
    with pytest.raises(refit.FailedPrecondition, match=words) as raised:
        model.update(failure, Former("version 1", lambda: model.load(1)))
    assert (raised.value.tensor, raised.value.version, raised.value.torn) == ("w", 2, False)
    assert raised.value.__cause__ is failure
    assert model.has == 1 and model.torn == []


@pytest.mark.parametrize("has_former", [True, False])
def test_what_cannot_come_back_is_torn(has_former: bool) -> None:
    model = Model()
    former = Former("version 1", lambda: model.load(1, MemoryError("none left"))) if has_former else None
    with pytest.raises(refit.FailedPrecondition, match="ValueError: no; .*it is torn") as raised:
        model.update(ValueError("no"), former)
    assert raised.value.torn and model.torn == [raised.value.message]
    assert ("version 1 could not be loaded again: MemoryError: none left" in raised.value.message) == has_former


def test_ctrl_c_loads_nothing_more() -> None:
    model = Model()
    with pytest.raises(KeyboardInterrupt):
        model.update(KeyboardInterrupt(), Former("version 1", lambda: model.load(1)))
    assert model.has == 2 and len(model.torn) == 1 and "it is torn" in model.torn[0]
    with pytest.raises(KeyboardInterrupt):
        model.update(ValueError(), Former("version 1", lambda: model.load(1, KeyboardInterrupt())))
    assert len(model.torn) == 2
