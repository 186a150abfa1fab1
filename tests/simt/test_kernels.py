"""Kernels that ops and models reach only in part: every tile of the product, networks in one kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = {
    "products": [
        f"{tile}_{what}"
        for tile in ("LargeFloat", "MediumFloat", "SmallFloat", "MediumDouble", "SmallDouble")
        for what in ("edges", "traffic")
    ]
    + ["column_sums"],
    "products_mma": [
        f"{multiplier}_{tile}_{what}"
        for multiplier in (
            *("split", "tf32", "rounded_bfloat16", "rounded_float16"),
            *("stored_bfloat16", "stored_float16"),
        )
        for tile in ("large", "small")
        for what in ("edges", "traffic")
    ],
    "networks": [
        *(f"TILEFUSE_MLP_{precision}_shapes" for precision in ("FMA", "SPLIT", "BFLOAT16", "FLOAT16")),
        *re.findall(r"^CASE\((\w+)\)", (HERE / "networks.cu").read_text(), re.MULTILINE),
    ],
}


@pytest.mark.parametrize(
    ("build", "order"), [("plain", "random"), ("plain", "reverse"), ("checked", "forward")]
)
@pytest.mark.parametrize("group", CASES)
def test_kernels(compiled: Callable, group: str, build: str, order: str) -> None:
    program = group.partition("_")[0]
    output = compiled(program, build)(CASES[group], order)
    assert output.split("\n")[:-1] == [f"{case} ok" for case in CASES[group]]
