"""Frameworks' interfaces as they were read, so that the plugs are tested where the frameworks are not installed.

Each module here has abstract classes with the given signatures and no more. use() puts them where the plugs import from.
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
    """Every abstract method is there, takes every call that the contract's does, and is of the same kind."""
    for name in getattr(contract, "__abstractmethods__"):
        expected, got = inspect.signature(getattr(contract, name)), inspect.signature(getattr(plug, name))
        for parameter in expected.parameters.values():
            assert parameter.name in got.parameters or _takes_any(got, parameter), f"{name} lacks {parameter}"
        required = {
            p.name
            for p in got.parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        extra = required - set(expected.parameters)
        assert not extra or _takes_any(expected), f"{name} asks for more: {extra}"
        for kind in (inspect.iscoroutinefunction,):
            if not inspect.isasyncgenfunction(getattr(plug, name)):
                assert kind(getattr(plug, name)) == kind(getattr(contract, name)), name


def _takes_any(signature: inspect.Signature, parameter: Any = None) -> bool:
    kinds = {p.kind for p in signature.parameters.values()}
    if parameter is not None and parameter.kind is parameter.VAR_KEYWORD:
        return True
    return inspect.Parameter.VAR_KEYWORD in kinds


def load(name: str) -> ModuleType:
    """A stand-in, anew: with empty registries."""
    full = f"{__name__}.{name}"
    sys.modules.pop(full, None)
    return importlib.import_module(full)
