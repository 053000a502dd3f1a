"""safetensors files as they are, and as they are not: random ones, most of them odd in one way or a few."""

from __future__ import annotations

import json
import math
import random
import struct

# Bits of an element.
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
        "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}
NAMES = ["w", "model.layers.0.mlp.weight", "a b", "ä", "名前", "😀", "/", "..", "x" * 300, "__metadata", 'a"b', "a\\b",
         "\u00e9", "e\u0301", "\u200b", "\ufeff", "\uffff", "a\tb", "\x00", "\x7f", "", "n" * 2000, "\u2028"]
RAW_NAMES = [rb'"\ud83d\ude00"', rb'"\ud83d"', rb'"\udc00x"', rb'"\/"', rb'"\x"', b'"\xff"', b'"\xc0\x80"',
             b'"\xed\xa0\x80"',
             b'"a\x01"', b'"\xf4\x90\x80\x80"', b"'w'", b"w", b"1"]
RAW_VALUES = [b"null", b"true", b"-1", b"-0", b"0.0", b"1.0", b"1e0", b"01", b"1e999", b"NaN", b"",
              b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b'"x"', b'"U8"', b'"u8"',
              b'"F128"', b'"\\ud800"', b"[]",
              b"[1]", b"[0,4]", b"[[1]]", b"[1,]", b"{}", b'{"a":[{"b":null}]}', b"[" * 60 + b"]" * 60,
              b"[" * 200 + b"]" * 200]
SPACES = [b"", b" ", b"   ", b"\t", b"\n", b"\r\n", b"\x00", b"\xc2\xa0", b"\x0b", b"\xef\xbb\xbf", b"//x\n"]


class Entry:
    """A member of the header: a tensor's, whose fields are JSON."""

    def __init__(self, name: str, dtype: str, shape: list[int], begin: int, end: int) -> None:
        self.offsets = (begin, end)
        self.name = json.dumps(name, ensure_ascii=False).encode()
        self.fields: list[tuple[bytes, bytes]] = [
            (b'"dtype"', json.dumps(dtype).encode()),
            (b'"shape"', json.dumps(shape).encode()),
            (b'"data_offsets"', json.dumps([begin, end]).encode()),
        ]

    def json(self) -> bytes:
        return self.name + b":{" + b",".join(key + b":" + value for key, value in self.fields) + b"}"


def random_shape(rng: random.Random) -> list[int]:
    if rng.random() < 0.02:
        return [1] * rng.choice([15, 16, 17, 40])
    return [rng.choice([0, 1, 1, 2, 3, 5]) for _ in range(rng.randrange(4))]


def random_tensors(rng: random.Random) -> tuple[list[Entry], int]:
    """The entries of a good file, in any order, and its bytes of data."""
    entries, end = [], 0
    for name in rng.sample(NAMES[:17], rng.randrange(5)) + rng.sample(NAMES[17:], rng.random() < 0.1):
        dtype = rng.choice(list(BITS))
        shape = random_shape(rng)
        if BITS[dtype] < 8 and shape and rng.random() < 0.9:
            shape[-1] = 8
        size = math.prod(shape) * BITS[dtype] // 8
        entries.append(Entry(name, dtype, shape, end, end + size))
        end += size
    rng.shuffle(entries)
    return entries, end


def spoil_entry(rng: random.Random, entry: Entry) -> None:
    if len(entry.fields) != 3:
        return
    at = rng.randrange(3)
    key, value = entry.fields[at]
    kind = rng.randrange(9)
    if kind == 0:
        entry.fields[at] = (key, rng.choice(RAW_VALUES))
    elif kind == 1:
        entry.fields.append((key, value))
    elif kind == 2:
        del entry.fields[at]
    elif kind == 3:
        other = rng.choice([b'"strides"', b'""', b'"dtyp\\u0065"'])
        entry.fields.insert(rng.randrange(4), (other, rng.choice(RAW_VALUES)))
    elif kind == 4:
        entry.name = rng.choice(RAW_NAMES)
    elif kind == 5:
        rng.shuffle(entry.fields)
    elif kind == 6:
        entry.fields[1] = (b'"shape"', json.dumps([rng.choice([0, 1, 2, 7, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
                                                     for _ in range(rng.randrange(4))]).encode())
    else:
        begin, end = entry.offsets
        begin += rng.choice([-1, 0, 0, 1, 4, 2**63, 2**64 - 1])
        end += rng.choice([-1, 0, 0, 1, 4, 2**63, 2**64 - 1])
        entry.fields[2] = (b'"data_offsets"', json.dumps([begin, end]).encode())


def random_metadata(rng: random.Random) -> bytes:
    key = rng.choice([b'"__metadata__"', b'"__metadata__"', b'"__meta\\u0064ata__"'])
    members: list[bytes] = []
    for _ in range(rng.randrange(3)):
        good = json.dumps(rng.choice(["pt", "", "ä", "\n"])).encode()
        value = good if rng.random() < 0.9 else rng.choice(RAW_VALUES)
        members.append(json.dumps(rng.choice(["format", "", "a", "a\x00"])).encode() + b":" + value)
    return key + b":" + (b"{" + b",".join(members) + b"}" if rng.random() < 0.9 else rng.choice(RAW_VALUES))


def random_file(rng: random.Random) -> bytes:
    entries, size = random_tensors(rng)
    if entries and rng.random() < 0.4:
        for entry in rng.choices(entries, k=rng.choice([1, 1, 2])):
            spoil_entry(rng, entry)
    members = [entry.json() for entry in entries]
    if rng.random() < 0.5:
        members.insert(rng.randrange(len(members) + 1), random_metadata(rng))
    if members and rng.random() < 0.1:
        members.insert(rng.randrange(len(members) + 1), rng.choice(members))
    space = rng.choice(SPACES) if rng.random() < 0.2 else b""
    padding = b" " * rng.randrange(9) if rng.random() < 0.8 else space
    header = space + b"{" + (b"," + space).join(members) + b"}" + padding
    data = rng.randbytes(max(0, size + (rng.choice([-1, 1, 8]) if rng.random() < 0.05 else 0)))
    file = struct.pack("<Q", len(header)) + header + data
    if rng.random() < 0.05:
        file = struct.pack("<Q", max(0, len(header) + rng.choice([-1, 1, 8, 2**20, 2**40, 2**63]))) + header + data
    if rng.random() < 0.05:
        file = file[: rng.randrange(len(file) + 1)]
    if rng.random() < 0.05:
        at = rng.randrange(len(file) or 1)
        file = file[:at] + bytes([rng.randrange(256)]) + file[at + 1 :]
    return file
