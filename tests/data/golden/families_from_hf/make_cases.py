"""Makes the cases of this folder: what NeMo Automodel's `from_hf` makes of the Hugging Face tensors of ../families.

    PYTHON make_cases.py      (a Python with nemo-automodel; README.md names the version)
"""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
FAMILIES = HERE.parent / "families"
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F16": torch.float16}
CLASSES = {
    "qwen3_moe": "Qwen3MoeStateDictAdapter", "glm4_moe": "Glm4MoeStateDictAdapter",
    "deepseek_v3": "DeepSeekV3StateDictAdapter", "nemotron_v3": "NemotronV3StateDictAdapter",
    "qwen3_next": "Qwen3NextStateDictAdapter", "qwen3_5_moe": "Qwen3_5MoeStateDictAdapter",
    "qwen3_5": "Qwen3_5DenseStateDictAdapter", "gpt_oss": "GPTOSSStateDictAdapter",
    "minimax_m2": "MiniMaxM2StateDictAdapter", "qwen3_vl_moe": "Qwen3VLMoeStateDictAdapter",
    "qwen3_omni_moe": "Qwen3OmniMoeStateDictAdapter", "mistral4": "Mistral4StateDictAdapter",
    "step3p5": "Step3p5StateDictAdapter", "gemma4_unified": "Gemma4UnifiedStateDictAdapter",
}


def adapter_of(family: str, args: dict[str, Any]) -> Any:
    """The reference's adapter with the configuration of a case."""
    name = "Mistral4MultimodalStateDictAdapter" if args.get("class") == "multimodal" else CLASSES[family]
    module = importlib.import_module(f"nemo_automodel.components.models.{family}.state_dict_adapter")
    kind = getattr(module, name)
    if family in ("qwen3_5", "gemma4_unified"):
        return kind()
    activation = args.get("activation", "relu2" if family == "nemotron_v3" else "swiglu")
    moe = SimpleNamespace(n_routed_experts=args["n_routed_experts"], moe_inter_dim=args["moe_inter_dim"],
                          expert_activation=activation, expert_bias=False)
    if "moe_config" in args and args["moe_config"] is None:
        moe = None
    backend = SimpleNamespace(attn=args.get("backend_attn", "sdpa"), dispatcher="torch", experts="torch_mm")
    config = SimpleNamespace(mtp_expert_hf_layout=args.get("mtp_expert_hf_layout"), name_or_path="", _name_or_path="")
    more = {"mtp_expert_hf_layout": args["mtp_expert_hf_layout"]} if family == "qwen3_5_moe" else {}
    return kind(config, moe, backend, dtype=DTYPES[args["dtype"]], **more)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Dtype, shape and bytes."""
    as_bytes = [t.contiguous().flatten().view(torch.uint8) if t.numel() else t for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and (a.numel() == 0 or torch.equal(*as_bytes))


def main() -> None:
    """Writes cases.json and one file a case."""
    cases = []
    for case in json.loads((FAMILIES / "cases.json").read_text()):
        family, args = case["family"], case["args"]
        if family not in CLASSES or "/whole_" not in case["id"]:
            continue
        hf = load_file(FAMILIES / case["output"])
        native = {name: t.contiguous() for name, t in adapter_of(family, args).from_hf(dict(hf)).items()}
        trained = load_file(FAMILIES / case["input"])
        for name in sorted(native.keys() | trained.keys()):
            if name not in native or name not in trained or not same(native[name], trained[name]):
                what = [str(t[name].dtype) + str(list(t[name].shape)) if name in t else "-" for t in (trained, native)]
                print(case["id"], name, "there", what[0], "back", what[1])
        file = case["id"].replace("/", "_") + ".native.safetensors"
        save_file(native, HERE / file)
        cases.append({"id": case["id"], "family": family, "args": args, "input": case["output"], "output": file})
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
