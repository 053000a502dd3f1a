"""Every golden case of every family, with `refit convert` and through a real service."""
from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from conftest import REFIT, SERVER, Service, run

FOLDER = Path(__file__).parents[1] / "data/golden/families"
CASES = json.loads((FOLDER / "cases.json").read_text())


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype, shape, bytes) by name, in the order of the data."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    order = sorted(header, key=lambda name: header[name]["data_offsets"])
    data = content[8 + size:]
    return {name: (header[name]["dtype"], tuple(header[name]["shape"]), data[slice(*header[name]["data_offsets"])])
            for name in order}


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def flags_of(case: dict[str, Any]) -> list[str]:
    named = {"n_routed_experts": "--experts", "moe_inter_dim": "--expert-width", "activation": "--activation",
             "exclude_key_regex": "--exclude-key-regex"}
    flags = ["--adapter", case["family"]]
    for key, value in case["args"].items():
        if key in named and value is not None:
            flags += [named[key], text_of(value)]
        elif key not in named and key != "dtype":
            flags += ["--adapter-option", f"{key}={text_of(value)}"]
    return flags


def expected_names(case: dict[str, Any]) -> list[str]:
    return [output[0] for tensor in case["tensors"] for output in tensor["outputs"]]


def check(case: dict[str, Any], made: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made == expected
    if case.get("order_free"):
        assert sorted(made) == sorted(expected)
    else:
        assert list(made) == list(expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"].replace("/", "-"))
def test_convert_gives_the_reference_bytes_in_order(case: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    done = run(REFIT, "convert", "--to", "hf", *flags_of(case), str(FOLDER / case["input"]), str(out))
    if "output" not in case or (case.get("accept_error") and done.code):
        assert done.code == 1 and not out.exists(), done
        assert next(iter(read(FOLDER / case["input"]))) in done.err
        return
    assert done.code == 0, done
    assert list(read(FOLDER / case["output"])) == expected_names(case)
    check(case, read(out), read(FOLDER / case["output"]))


@pytest.mark.parametrize("family", sorted({case["family"] for case in CASES}))
def test_a_service_gives_them_too_and_verifies(family: str, service: Service, tmp_path: Path) -> None:
    for number, case in enumerate([case for case in CASES if case["family"] == family and "output" in case], 1):
        native = {name: tensor for name, tensor in read(FOLDER / case["input"]).items() if "_extra_state" not in name}
        expected = {name: tensor for name, tensor in read(FOLDER / case["output"]).items() if "_extra_state" not in name}
        source, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
        write(source, native)
        flags = [*flags_of(case), "--version", str(number)]
        pushed = service.refit("push", *flags, "--allow-empty", str(source))
        if case.get("accept_error") and pushed.code:
            continue
        assert pushed.code == 0, (case["id"], pushed)
        verify = (*flags, "--verify", str(source)) if number == 1 else ("--version", str(number))  # LibTorch takes long
        pulled = service.refit("pull", *verify, "--out", str(out), patience=90)
        assert pulled.code == 0, (case["id"], pulled)
        assert read(out) == expected, case["id"]


def test_families_are_listed() -> None:
    listed = run(REFIT, "adapters", "--json")
    names = [adapter["name"] for adapter in json.loads(listed.out)["adapters"]]
    assert set(names) == {case["family"] for case in CASES} | {"gemma4_moe", "identity", "diffusion_gemma"}
    one = run(REFIT, "adapters", "nemotron_v3")
    assert one.code == 0 and "activation=relu2|swiglu" in one.out and "dt_bias" in one.out, one
    assert run(REFIT, "adapters", "gemma5").code == 3


def test_auto_says_what_it_took(service: Service, tmp_path: Path) -> None:
    source = FOLDER / "minimax_m2/whole_0.in.safetensors"
    pushed = service.refit("push", "--adapter", "auto", "--version", "1", str(source))
    assert pushed.code == 0 and "adapter minimax_m2: " in pushed.err, pushed
    assert "by adapter minimax_m2" in service.refit("describe", "1").out
    assert service.refit("pull", "--adapter", "auto", "--verify", str(source), patience=90).code == 0
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "auto", str(source), str(tmp_path / "out"))
    assert done.code == 0 and "adapter minimax_m2: " in done.err, done


def test_what_auto_cannot_know_must_be_said(tmp_path: Path) -> None:
    fused = FOLDER / "hf_v5_fused/qwen3_moe_0.in.safetensors"
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "auto", str(fused), str(tmp_path / "out"))
    assert done.code == 1 and "hf_v5_fused" in done.err and "identity" in done.err, done
    both = FOLDER / "mistral4/whole_0.in.safetensors"
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "auto", str(both), str(tmp_path / "out"))
    assert done.code == 1 and "deepseek_v3" in done.err and "mistral4" in done.err, done


def test_names_of_wrapped_modules_are_never_half_converted(service: Service, tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    tensors = read(FOLDER / "qwen3_moe/whole_0.in.safetensors")
    write(source, {name.replace("layers.2.", "layers.2._checkpoint_wrapped_module."): tensor
                   for name, tensor in tensors.items()})
    for command in (["push", "--version", "1"], ["convert", "--to", "hf"]):
        out = [] if command[0] == "push" else [str(tmp_path / "out")]
        done = service.refit(*command, "--adapter", "qwen3_moe", str(source), *out) if not out else run(
            REFIT, *command, "--adapter", "qwen3_moe", str(source), *out)
        assert done.code != 0 and "_checkpoint_wrapped_module" in done.err, done


def test_a_near_miss_is_told(tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    write(source, {"experts.gate_and_up_projs": ("F32", (1, 1, 2), bytes(8))})
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "qwen3_moe", str(source), str(tmp_path / "out"))
    assert done.code == 0 and "experts.gate_and_up_projs" in done.err and "no rule" in done.err, done


@pytest.mark.parametrize("prefix", ["", "policy.model.", "model.language_model."])
def test_names_with_another_prefix_are_never_half_converted(prefix: str, service: Service, tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    write(source, {name.replace("model.", prefix, 1): tensor
                   for name, tensor in read(FOLDER / "qwen3_moe/whole_0.in.safetensors").items()})
    for command, out in ((service.refit, []), (lambda *words: run(REFIT, *words), [str(tmp_path / "out")])):
        words = ("convert", "--to", "hf") if out else ("push", "--version", "1")
        done = command(*words, "--adapter", "qwen3_moe", str(source), *out)
        assert done.code != 0 and "experts.gate_and_up_projs" in done.err and "rename them" in done.err, done
    if prefix == "":
        done = run(REFIT, "convert", "--to", "hf", "--adapter", "qwen3_moe", "--adapter-option",
                   "uses_model_prefix=false", str(source), str(tmp_path / "out"))
        assert done.code == 0, done


def test_auto_refuses_shapes_and_says_which(tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    tensors = read(FOLDER / "qwen3_moe/whole_0.in.safetensors")
    name = next(name for name in tensors if name.endswith("gate_and_up_projs"))
    dtype, shape, content = tensors[name]
    write(source, {**tensors, name: (dtype, (shape[0] * shape[1], shape[2]), content)})
    done = run(REFIT, "convert", "--to", "hf", "--adapter", "auto", str(source), str(tmp_path / "out"))
    assert done.code == 1 and "not qwen3_moe" in done.err and name in done.err and "3 dimensions" in done.err, done


def test_options_that_it_does_not_have_are_refused_and_the_known_are_listed(tmp_path: Path) -> None:
    for option in ("activation=gelu", "wings=2"):
        done = run(REFIT, "convert", "--to", "hf", "--adapter", "qwen3_moe", "--adapter-option", option,
                   str(FOLDER / "qwen3_moe/whole_0.in.safetensors"), str(tmp_path / "out"))
        assert done.code == 1 and "activation" in done.err, done


def test_a_family_keeps_dtypes_unless_told_otherwise(service: Service, tmp_path: Path) -> None:
    source, out = FOLDER / "nemotron_v3/whole_0.in.safetensors", tmp_path / "out.safetensors"
    for number, (flags, expected) in enumerate([([], "F32"), (["--cast-family-dtypes"], "BF16")], 1):
        cast = ("--adapter", "nemotron_v3", "--dtype", "BF16", "--version", str(number), *flags)
        assert service.refit("push", *cast, str(source)).code == 0
        assert service.refit("pull", *cast, "--verify", str(source), "--out", str(out), patience=90).code == 0
        made = read(out)
        assert made["backbone.layers.0.mixer.A_log"][0] == expected
        assert made["backbone.layers.2.mixer.gate.e_score_correction_bias"][0] == expected
        assert made["backbone.norm_f.weight"][0] == "BF16"


def test_ranks_push_experts_and_workers_take_them(service: Service, tmp_path: Path) -> None:
    source = FOLDER / "qwen3_moe/whole_0.in.safetensors"
    flags = ("--adapter", "qwen3_moe", "--version", "1")
    rank = ("push", *flags, str(source), "--world", "2", "--ep-size", "2", "--fsdp-size", "2", "--rank")
    first = service.start(*rank, "0")
    second = service.refit(*rank, "1")
    assert first.wait(30) == 0 and second.code == 0, second
    out = tmp_path / "out.safetensors"
    assert service.refit("pull", *flags, "--verify", str(source), "--out", str(out), patience=90).code == 0
    whole = read(FOLDER / "qwen3_moe/whole_0.out.safetensors")
    assert read(out) == whole
    for part, others in enumerate((("2", "3"), ("0", "1"))):
        slices = ("--ep-rank", str(part), "--ep-size", "2")
        pulled = service.refit("pull", *flags, "--verify", str(source), *slices, "--out", str(out), patience=90)
        assert pulled.code == 0, pulled
        wanted = {name: tensor for name, tensor in whole.items()
                  if not any(f".experts.{other}." in name for other in others)}
        assert list(read(out)) == list(wanted) and read(out) == wanted


PAGE = Path(__file__).parents[2] / "common/adapters/families/README.md"


def own_family(folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    """The worked example of the page."""
    path = folder / "acme_moe.toml"
    path.write_text(PAGE.read_text().split("```toml\n")[1].split("```")[0].replace(*change))
    return path


def own_tensors(path: Path) -> None:
    write(path, {"acme.layers.0.ffn.bank.in": ("F32", (2, 1, 2), struct.pack("<4f", 0, 1, 2, 3)),
                 "acme.layers.0.ffn.bank.out": ("F32", (2, 1, 1), struct.pack("<2f", 4, 5)),
                 "acme.layers.0.router.bias": ("F32", (2,), struct.pack("<2f", 6, 7))})


OWN = {"model.layers.0.ffn.experts.0.gate.weight": 0, "model.layers.0.ffn.experts.0.up.weight": 1,
       "model.layers.0.ffn.experts.1.gate.weight": 2, "model.layers.0.ffn.experts.1.up.weight": 3,
       "model.layers.0.ffn.experts.0.down.weight": 4, "model.layers.0.ffn.experts.1.down.weight": 5}


def test_a_family_of_ones_own_offline_and_in_a_service(tmp_path: Path) -> None:
    family, source, out = own_family(tmp_path), tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    own_tensors(source)
    flags = ("--adapter-file", str(family), "--adapter", "acme_moe")
    listed = run(REFIT, "adapters", "--adapter-file", str(family), "acme_moe")
    assert listed.code == 0 and "Acme's mixture of experts" in listed.out, listed
    assert run(REFIT, "convert", "--to", "hf", *flags, str(source), str(out)).code == 0
    made = read(out)
    assert list(made) == [*OWN, "model.layers.0.router.bias"]
    assert {name: struct.unpack("<f", made[name][2])[0] for name in OWN} == OWN
    service = Service(tmp_path, "--adapter-file", str(family))
    try:
        assert service.refit("push", *flags, "--version", "1", str(source)).code == 0
        assert service.refit("pull", *flags, "--verify", str(source), "--out", str(out), patience=90).code == 0
        assert read(out) == made
        assert "acme_moe" in service.refit("status").out
    finally:
        service.end()


def test_a_service_knows_its_own_files_only(service: Service, tmp_path: Path) -> None:
    own_tensors(tmp_path / "in.safetensors")
    done = service.refit("push", "--adapter-file", str(own_family(tmp_path)), "--adapter", "acme_moe", "--version", "1",
                         str(tmp_path / "in.safetensors"))
    assert done.code == 1 and "acme_moe" in done.err and "qwen3_moe" in done.err, done


@pytest.mark.parametrize("change, line, why", [
    (('suffix = ".ffn.bank.in"', "suffix = 7"), 6, "must be a string"),
    (('width = "d2/2"', 'widht = "d2/2"'), 9, "unknown key 'widht'"),
    (('width = "d2/2"', 'width = "half"'), 9, "no size"),
    (('transform = "transpose" },', 'transform = "turn" },'), 11, "no transform 'turn'"),
    (('name = "acme_moe"', "name = acme"), 1, ""),
    (("{expert}.down", "{wing}.down"), 15, "{wing} stands for nothing"),
    (('prefix = "acme."', "regex = '('"), 22, "regex"),
    (('name = "acme_moe"', 'name = "identity"'), None, "already"),
])
def test_what_is_wrong_in_a_file_is_said_with_its_line(
        change: tuple[str, str], line: int | None, why: str, tmp_path: Path) -> None:
    family = own_family(tmp_path, change)
    done = run(REFIT, "adapters", "--adapter-file", str(family))
    where = f"{family}:{line}: " if line else str(family)
    assert done.code == 2 and where in done.err and why in done.err, done
    server = run(SERVER, "--listen", "127.0.0.1:0", "--adapter-file", str(family))
    assert server.code != 0 and where in server.err and why in server.err, server


def test_padding_of_shards_and_slices(tmp_path: Path) -> None:
    family, source, out = tmp_path / "padded.toml", tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    family.write_text("name = 'padded'\n[[rule]]\nsuffix = '.A_log'\nto = '.A_log'\npad = { dim = 1, multiple = 4 }\n")
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
    write(source, {"m.A_log": ("F32", (3, 3), struct.pack("<9f", *sum(rows, [])))})
    flags = ("--adapter-file", str(family), "--adapter", "padded")
    padded = ("F32", (3, 4), struct.pack("<12f", *(value for row in rows for value in (*row, 0.0))))
    assert run(REFIT, "convert", "--to", "hf", *flags, str(source), str(out)).code == 0
    assert read(out) == {"m.A_log": padded}
    done = run(REFIT, "convert", "--to", "native", *flags, str(out), str(tmp_path / "back"))
    assert done.code == 1 and "m.A_log" in done.err, done
    service = Service(tmp_path, "--adapter-file", str(family))
    try:
        rank = ("push", *flags, "--version", "1", str(source), "--world", "2", "--fsdp-size", "2", "--rank")
        first = service.start(*rank, "0")
        second = service.refit(*rank, "1")
        assert first.wait(30) == 0 and second.code == 0, second
        assert service.refit("pull", *flags, "--verify", str(source), "--out", str(out), patience=90).code == 0
        assert read(out) == {"m.A_log": padded}
        rules = tmp_path / "rules"
        rules.write_text("1 A_log\n")
        cut = ("--tp-rules", str(rules), "--tp-size", "2", "--tp-rank", "1", "--version", "1")
        assert service.refit("pull", *cut, "--out", str(out)).code == 0
        assert read(out) == {"m.A_log": ("F32", (3, 2), struct.pack("<6f", 3, 0, 6, 0, 9, 0))}
    finally:
        service.end()
