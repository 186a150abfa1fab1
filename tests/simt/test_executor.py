"""The executor itself: right kernels give right results in every order of threads, planted bugs are found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = (HERE / "kernels.cu").read_text()
BUGS = (HERE / "bugs.cu").read_text()

ORDERS = ["forward", "reverse", "random", "random:1", "random:2"]
CASES = re.findall(r"^CASE\((\w+)\)", KERNELS, re.MULTILINE)
PLANTED = {name: kinds.split("|") for name, kinds in re.findall(r'BUG\((\w+), "([^"]+)"\)', BUGS)}
PLAIN = re.findall(r"^PLAIN_BUG\((\w+), \"", BUGS, re.MULTILINE)


def lines_of(bug: str) -> list[int]:
    return [n for n, line in enumerate(BUGS.splitlines(), 1) if re.search(rf"// here: {bug}$", line)]


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 20
    assert len(PLANTED) >= 50
    assert all(lines_of(bug) for bug in PLANTED)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("build", ["plain", "checked"])
def test_right_kernels(compiled: Callable, build: str, order: str) -> None:
    output = compiled("kernels", build)(CASES, order)
    assert output.split("\n")[:-1] == [f"{case} ok" for case in CASES]


def findings(compiled: Callable, build: str, bugs: list[str], order: str) -> dict[str, tuple[str, int, str]]:
    found = {}
    for line in compiled("bugs", build)(bugs, order).splitlines():
        name, kind, number, text = line.split("|", 3)
        found[name] = (kind, int(number), text)
    assert list(found) == bugs
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_bugs_are_found_at_their_lines(compiled: Callable, order: str) -> None:
    for bug, (kind, line, text) in findings(compiled, "checked", list(PLANTED), order).items():
        assert kind in PLANTED[bug], f"{bug}: {text}"
        assert line in lines_of(bug), f"{bug}: {text}"
        where = rf"block \(\d+, 0, 0\), thread \(\d+, 0, 0\), \S+bugs\.cu:{line}: "
        assert re.match(rf"{kind}: kernel {bug}_kernel, {where}", text), text
        if kind == "race":
            other = re.search(r"thread \(\d+, 0, 0\)( of block .*)? has .* at \S+bugs\.cu:(\d+)$", text)
            assert other, text
            assert int(other[2]) in lines_of(bug), text


@pytest.mark.parametrize("order", ORDERS)
def test_what_the_plain_build_finds(compiled: Callable, order: str) -> None:
    for bug, (kind, line, text) in findings(compiled, "plain", PLAIN, order).items():
        assert kind in PLANTED[bug], f"{bug}: {text}"
        # Of a write past an array it sees the damage, afterwards.
        damage = kind == "out of bounds" and "has written" in text
        assert damage or line in lines_of(bug), f"{bug}: {text}"


def test_messages(compiled: Callable) -> None:
    checked = findings(compiled, "checked", ["reused_tile", "past_end", "barrier_in_branch"], "forward")
    place = r"race: kernel reused_tile_kernel, block \(0, 0, 0\), thread \(\d+, 0, 0\), \S+/bugs\.cu:\d+: "
    what = r"reads 4 bytes at byte \d+ of tile of 1024 bytes, which thread \(\d+, 0, 0\) has written, "
    other = r"with no barrier between, at \S+/bugs\.cu:\d+"
    assert re.fullmatch(place + what + other, checked["reused_tile"][2])
    for bug, end in {
        "past_end": "writes 4 bytes at 0 bytes past the end of an allocation of 1000 bytes",
        "barrier_in_branch": "100 of 256 threads wait at the barrier; thread (100, 0, 0) has exited",
    }.items():
        assert checked[bug][2].endswith(": " + end)

    plain = findings(compiled, "plain", ["past_end", "past_shared"], "forward")
    for bug, text in {
        "past_end": "it has written outside an allocation of 1000 bytes, 0 bytes past its end",
        "past_shared": "a thread of block (0, 0, 0) has written 0 bytes past the end of x of 256 bytes",
    }.items():
        assert plain[bug][2] == f"out of bounds: kernel {bug}_kernel: {text}"


# For one access of a warp: sectors of global memory or wavefronts of shared memory, and the fewest that do.
COUNTS = {
    "coalesced_load": (4, 4),
    "coalesced_store": (4, 4),
    "shifted_load": (5, 4),
    "strided_load": (8, 4),
    "scattered_load": (32, 4),
    "broadcast_load": (1, 1),
    "pack_load": (16, 16),
    "byte_load": (1, 1),
    "double_load": (8, 8),
    "half_of_the_lanes": (2, 2),
    "shared_rows": (1, 1),
    "shared_broadcast": (1, 1),
    "shared_two_way": (2, 1),
    "shared_columns": (32, 1),
    "shared_padded_columns": (1, 1),
    "shared_packs": (4, 4),
    "shared_packs_apart": (32, 4),
    "shared_doubles": (2, 2),
    "shared_matrices": (4, 4),
    "shared_matrices_conflict": (32, 4),
}


def test_counts(compiled: Callable) -> None:
    rows = [[int(x) for x in line.split()] for line in compiled("counts", "checked")([]).splitlines()]
    counts = {line: numbers for line, *numbers in rows}
    source = (HERE / "counts.cu").read_text().splitlines()
    names = {line: text.split()[-1] for line, text in enumerate(source, 1) if "// count: " in text}
    assert set(names.values()) == set(COUNTS)
    for line, name in names.items():
        transfers, ideal = COUNTS[name]
        assert counts[line] == [6, 6 * transfers, 6 * ideal], name  # three rounds of two warps
