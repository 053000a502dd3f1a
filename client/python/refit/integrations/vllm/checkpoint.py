"""The checkpoint that a vLLM model was loaded from: what was in it, without reading it, and all of it once more."""

from __future__ import annotations

import glob
import importlib
import json
import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

from refit.dtypes import PYTHON_NAMES

Pair = Tuple[str, Any]

_INDEX = "model.safetensors.index.json"


def checkpoint_shells(model_config: Any) -> Optional[Dict[str, Any]]:
    """Tensors on meta, by name, as the headers of the checkpoint's safetensors files have them. None: there are no such
    files on this host."""
    folder = _folder(model_config)
    files = [] if folder is None else _files(folder)
    if not files:
        return None
    found: Dict[str, Any] = {}
    for path in files:
        found.update(_shells_in(path))
    return found


def checkpoint_weights(vllm_config: Any, model_config: Any, model: Any) -> Iterable[Pair]:
    """All (name, tensor) pairs again, read with vLLM's own loader for the format.

    Raises:
        NotImplementedError: vLLM cannot read this format a second time.
    """
    loader = importlib.import_module("vllm.model_executor.model_loader").get_model_loader(vllm_config.load_config)
    if not hasattr(loader, "get_all_weights"):
        raise NotImplementedError(f"vLLM cannot load the format {vllm_config.load_config.load_format!r} again")
    pairs: Iterable[Pair] = loader.get_all_weights(model_config, model)
    return pairs


def _folder(model_config: Any) -> Optional[str]:
    """Of the model, or of its copy in Hugging Face's cache."""
    name = getattr(model_config, "model", None)
    if not isinstance(name, str) or os.path.isdir(name):
        return name if isinstance(name, str) else None
    try:
        hub = importlib.import_module("huggingface_hub")
        folder: str = hub.snapshot_download(name, revision=model_config.revision, local_files_only=True)
        return folder
    except Exception:  # not cached, or no name of a repository
        return None


def _files(folder: str) -> List[str]:
    index = os.path.join(folder, _INDEX)
    if os.path.exists(index):
        with open(index) as file:
            names = sorted(set(json.load(file)["weight_map"].values()))
        return [os.path.join(folder, name) for name in names]
    return sorted(glob.glob(os.path.join(folder, "model*.safetensors")))


def _shells_in(path: str) -> Dict[str, Any]:
    import torch

    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return {
        name: torch.empty(entry["shape"], dtype=getattr(torch, PYTHON_NAMES[entry["dtype"]]), device="meta")
        for name, entry in header.items()
        if entry["dtype"] in PYTHON_NAMES
    }
