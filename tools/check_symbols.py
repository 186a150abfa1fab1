"""Check that the objects of one instruction set share no symbol with another's.

A function that two of them define, such as a standard template that was not inlined, is kept once by the
linker: maybe the copy with AVX-512 instructions, which then runs on every processor. So weak symbols must lie
in their own namespace.

Usage: check_symbols.py BUILD_FOLDER
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WEAK = set("WwVvu")


def leaks(isa: str, objects: list[Path]) -> list[str]:
    """The weak symbols of the objects that are outside tilefuse::<isa>, with the file that has them."""
    found = []
    own = (f"tilefuse::{isa}::", f"8tilefuse{len(isa)}{isa}")  # nm can't demangle all names of lambdas
    for path in objects:
        listing = subprocess.run(
            ["nm", "--demangle", "--defined-only", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for line in listing.splitlines():
            _, kind, name = line.split(maxsplit=2)
            inside = any(name_space in name for name_space in own)
            if kind in WEAK and not inside and name != "DW.ref.__gxx_personality_v0":
                found.append(f"{path.name}: {name}")
    return found


def main() -> int:
    by_isa: dict[str, list[Path]] = {}
    for path in Path(sys.argv[1]).rglob("*.o"):
        if match := re.search(r"tilefuse_cpu_(\w+)\.dir", str(path)):
            by_isa.setdefault(match[1], []).append(path)
    if not by_isa:
        print(f"no kernel objects below {sys.argv[1]}: build first, with the build folder kept")
        return 2
    found = [line for isa, objects in sorted(by_isa.items()) for line in leaks(isa, objects)]
    for line in found:
        print(line)
    number = sum(map(len, by_isa.values()))
    print(f"{number} objects of {', '.join(sorted(by_isa))}: {len(found)} shared symbols")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
