"""Gives the libraries inside a wheel symbols of their own.

    own_symbols.py FOLDER PREFIX     FOLDER: an unpacked wheel that auditwheel has repaired

Python loads extension modules apart from one another, but symbols are still looked up in what was loaded for the whole
process first (LD_PRELOAD, RTLD_GLOBAL), and C++'s unique symbols, such as the statics of inline functions, exist once a
process. So our gRPC, Protobuf and Abseil could meet those of grpcio, torch or ray. With a prefix at every symbol that
they define, they cannot. Symbols that the system's libraries define too, such as instances of std::vector, stay: all
of the process share them anyway.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# What manylinux wheels take from the system.
SYSTEM = ("libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6")


def dynamic_symbols(path: str | Path) -> tuple[set[str], set[str]]:
    """Those that it defines, and those that it needs."""
    out = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
    defined, needed = set(), set()
    for line in out.splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].rstrip(":").isdigit() and fields[4] != "LOCAL":
            (needed if fields[6] == "UND" else defined).add(fields[7].split("@")[0])
    return defined, needed


def system_symbols() -> set[str]:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found: set[str] = set()
    for name in SYSTEM:
        path = re.search(rf"^\s*{re.escape(name)} \(libc6,x86-64.*=> (.*)$", listed, re.M)
        assert path, f"ldconfig knows no {name}"
        found |= dynamic_symbols(path[1])[0]
    return found


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main(folder: Path, prefix: str) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_elf(path)]
    libraries = [path for path in files if path.parent.suffix == ".libs"]
    assert libraries, f"{folder} has no libraries: it is not what auditwheel makes"
    own = set().union(*(dynamic_symbols(path)[0] for path in libraries)) - system_symbols()
    own = {name for name in own if name not in ("_init", "_fini") and not name.startswith(prefix)}
    with tempfile.NamedTemporaryFile("w", suffix=".map") as names:
        names.writelines(f"{name} {prefix}{name}\n" for name in sorted(own))
        names.flush()
        for path in files:
            subprocess.run(["patchelf", "--rename-dynamic-symbols", names.name, path], check=True)
    for path in files:
        left = set().union(*dynamic_symbols(path)) & own
        assert not left, f"{path} still has {sorted(left)[:3]}"
    print(f"{len(own)} symbols of {len(libraries)} libraries begin with {prefix}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
