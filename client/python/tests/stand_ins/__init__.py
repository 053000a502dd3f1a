"""Frameworks' interfaces as they were read, so that the plugs are tested where the frameworks are not installed.

Each module here has abstract classes with the given signatures and no more. use() puts them where the plugs import
from.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any, Dict, Iterable


def use(monkeypatch: Any, modules: Dict[str, Any], fresh: Iterable[str] = ()) -> None:
    """Until the test's end.

    Args:
        modules: what to import from, by full name; packages above them are made.
        fresh: modules of the plugs to be imported anew, from these.
    """
    for name in list(sys.modules):
        if name.split(".")[0] in {full.split(".")[0] for full in modules}:
            monkeypatch.delitem(sys.modules, name)
    for full, module in modules.items():
        parts = full.split(".")
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            if package not in sys.modules:
                made = ModuleType(package)
                made.__path__ = []  # type: ignore[attr-defined]
                monkeypatch.setitem(sys.modules, package, made)
        monkeypatch.setitem(sys.modules, full, module)
        if len(parts) > 1:
            monkeypatch.setattr(sys.modules[".".join(parts[:-1])], parts[-1], module, raising=False)
    for name in fresh:
        monkeypatch.delitem(sys.modules, name, raising=False)


def without(monkeypatch: Any, package: str, fresh: Iterable[str] = ()) -> None:
    """As if the package were not installed."""
    for name in list(sys.modules):
        if name == package or name.startswith(package + "."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for name in fresh:
        monkeypatch.delitem(sys.modules, name, raising=False)


def assert_fits(plug: type, contract: type) -> None:
    """Every abstract method is there, takes the contract's arguments (those by position may have other names), asks
    for no more, and is a coroutine function (or an asynchronous generator) where the contract's is."""
    for name in getattr(contract, "__abstractmethods__"):
        theirs, ours = getattr(contract, name), getattr(plug, name)
        expected, got = _Takes(theirs), _Takes(ours)
        assert len(expected.by_position) <= len(got.by_position), f"{name}: {expected.by_position}"
        assert expected.by_name <= got.by_name, f"{name} lacks {expected.by_name - got.by_name}"
        assert got.required <= len(expected.by_position) + len(expected.by_name) or expected.any_name, name
        is_awaited = inspect.iscoroutinefunction(ours) or inspect.isasyncgenfunction(ours)
        assert is_awaited or not inspect.iscoroutinefunction(theirs), name


class _Takes:
    """What a function takes."""

    def __init__(self, function: Any):
        parameters = inspect.signature(function).parameters.values()
        self.by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        self.by_name = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self.required = sum(p.default is p.empty and p.kind not in variable for p in parameters)


def load(name: str) -> ModuleType:
    """A stand-in, anew: with empty registries."""
    full = f"{__name__}.{name}"
    sys.modules.pop(full, None)
    return importlib.import_module(full)
