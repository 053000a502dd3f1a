"""The model families that are converted."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional

from refit import _refit


def known_adapters() -> List[Dict[str, Any]]:
    """The model families that `adapter` may name, as dicts: name, title, models, engines, not_covered, options (the
    values of each, its default first), exclude ("native", "hf" or "never": the names that exclude_key_regex is matched
    with), keep_dtype and f32 (regexes of Hugging Face names that are never cast, or become F32)."""
    return _refit.adapters()


def add_adapter_file(path: "str | os.PathLike[str]") -> None:
    """Knows the family of this TOML file from now on, in this process: also in a service that runs in it.

    Raises:
        InvalidArgument: with file and line, for what is wrong in it.
        AlreadyExists: if there is an adapter of its name.
        NotFound: if the file cannot be read.
    """
    _refit.add_adapter_file(os.fspath(path))


def option_texts(options: Optional[Mapping[str, Any]]) -> Dict[str, str]:
    """Options as they are sent: True is "true", None "null", 128 "128"."""
    words = {True: "true", False: "false", None: "null"}
    return {
        name: words[value] if value is None or isinstance(value, bool) else str(value)
        for name, value in (options or {}).items()
    }


def excludes_native_names(adapter: str) -> bool:
    """Whether the adapter's exclude_key_regex is matched with native names, so that what matches need not be shown."""
    return any(known["name"] == adapter and known["exclude"] == "native" for known in _refit.adapters())
