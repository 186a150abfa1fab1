"""What nvcc makes of the kernels: no warning, no spills, no fewer blocks on a multiprocessor than before."""

from __future__ import annotations

import json
import re
from pathlib import Path

import kernel_resources
import pytest
from kernel_resources import ARCHITECTURES, RECORD, SOURCES, Use, compiled, problems

needs_nvcc = pytest.mark.skipif(kernel_resources.nvcc() is None, reason="there is no nvcc")

REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5scaleIfEvPT_' for 'sm_75'
ptxas info    : Function properties for _Z5scaleIfEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 33024 bytes smem, 372 bytes cmem[0]
ptxas info    : Compile time = 0.000 ms
ptxas info    : Compiling entry function '_Z3sumPdi' for 'sm_90a'
ptxas info    : Function properties for _Z3sumPdi
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""
PTX = """
.visible .entry _Z5scaleIfEvPT_(
\t.param .u64 .ptr .align 1 _Z5scaleIfEvPT__param_0
)
.maxntid 16, 16
.minnctapersm 2
{
}
.visible .entry _Z3sumPdi(
\t.param .u64 _Z3sumPdi_param_0
)
{
}
"""


def test_reports_are_understood() -> None:
    threads = kernel_resources.bounds(PTX)
    assert threads == {"_Z5scaleIfEvPT_": 256}
    scale, total = kernel_resources.parsed(REPORT, threads)
    assert scale == Use("_Z5scaleIfEvPT_", 75, 40, 33024, 0, 256)
    assert scale.blocks == 1  # by its shared memory
    assert scale._replace(shared=0).blocks == 4  # by its threads
    assert scale._replace(shared=0, registers=121).blocks == 2  # counted by eights
    assert total == Use("_Z3sumPdi", 90, 255, 0, 20, 0)
    assert kernel_resources.readable([scale, total]) == ["scale<float>", "sum"]


def test_problems_are_found() -> None:
    use = Use("a.cu: scale<float>", 90, 64, 0, 0, 256)
    record = kernel_resources.summary([use])
    assert problems([use], record) == []
    assert problems([use._replace(registers=60)], record) == []
    for worse, says in (
        ({"registers": 96}, "2 blocks of 256 threads"),
        ({"shared": 40000}, "1 blocks"),
        ({"spilled": 8}, "spills 8 bytes"),
        ({"threads": 0}, "no __launch_bounds__"),
        ({"kernel": "a.cu: shift"}, "is not in resources.json"),
    ):
        (found,) = problems([use._replace(**worse)], record)
        assert says in found


def test_record_is_of_these_files() -> None:
    recorded = {kernel.partition(":")[0] for kernel in json.loads(RECORD.read_text())}
    assert recorded == {path.name for path in SOURCES}


@needs_nvcc
def test_a_warning_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "careless.cu"
    source.write_text("__global__ void f(int* x) { int unused; *x = 1; }\n")
    with pytest.raises(RuntimeError, match=r"careless\.cu.*unused"):
        compiled(source, (75,))


# Of kernels on matrix units, from sm_80 on: products in the format meant, operands by ldmatrix and, if they
# aren't rounded on the way, cp.async; of others, multiply-adds, and 16 bytes an access.
ON_MATRIX_UNITS = {
    "Split": "HMMA.1688.F32.TF32",
    "Tf32": "HMMA.1688.F32.TF32",
    "Bfloat16": "HMMA.16816.F32.BF16",
    "Float16": "HMMA.16816.F32",
}
MULTIPLIER = rf".*\b({'|'.join(ON_MATRIX_UNITS)})\b.*"
BY_16_BYTES = [r"LDG\.E\.128.*", r"LDS\.(U\.)?128", r"STS\.128", r"STG\.E\.128.*"]
COPIED = [r"LDGSTS\.E\..*128.*"]
ALONG, ACROSS = r"LDSM\.16\.M88\.4", r"LDSM\.16\.MT88\.4"  # (float32 that lies across has no ldmatrix)
MEANT = {
    rf"matmul_mma.cu: {MULTIPLIER}": [ALONG, *BY_16_BYTES],
    rf"conv_mma.cu: .*::convolve_mma{MULTIPLIER}": [ALONG, *BY_16_BYTES],
    rf"conv_mma.cu: .*::weigh_mma{MULTIPLIER}": BY_16_BYTES,
    r"(?:matmul|conv)_mma.cu: .*\b(Split|Tf32)\b.*": COPIED,
    r"matmul_mma.cu: .*Stored<(Bfloat16|Float16)>, unsigned short.*": COPIED,
    r".*::(?:multiply|weigh)_mma.*Stored<(Bfloat16|Float16)>.*": [ACROSS],
    rf"mlp.cu: {MULTIPLIER}": BY_16_BYTES,
    r"mlp.cu: .*<networks::Fma>": ["FFMA", *BY_16_BYTES],
    r"matmul.cu: products::multiply<products::Tile<float.*": ["FFMA", *BY_16_BYTES],
    r"matmul.cu: products::multiply<products::Tile<double.*": ["DFMA", *BY_16_BYTES],
    r"conv.cu: .*::(?:convolve|weigh)<products::Tile<float.*": ["FFMA", *BY_16_BYTES],
    r"conv.cu: .*::(?:convolve|weigh)<products::Tile<double.*": ["DFMA", *BY_16_BYTES],
    r"conv_depthwise.cu: .*::(?:convolve|weigh)_channels<float, 4.*": ["FFMA", BY_16_BYTES[0]],
    r"conv_depthwise.cu: .*::(?:convolve|weigh)_channels<double, 2.*": ["DFMA", BY_16_BYTES[0]],
}


def missing(use: Use) -> list[str]:
    """The instructions that a kernel should be made of, and is not."""
    wanted: list[str] = []
    for kernel, instructions in MEANT.items():
        if not (match := re.fullmatch(kernel, use.kernel)):
            continue
        if not match.groups():
            wanted += instructions
        elif use.architecture >= 80:
            wanted += [*instructions, re.escape(ON_MATRIX_UNITS[match[1]])]
    return [w for w in wanted if not any(re.fullmatch(w, i) for i in use.instructions)]


def test_missing_instructions_are_found() -> None:
    code = {"LDG.E.128", "LDGSTS.E.BYPASS.128.ZFILL", "LDS.128", "STS.128", "STG.E.128"}
    code |= {"LDSM.16.M88.4", "LDSM.16.MT88.4", "HMMA.16816.F32"}
    kernel = "matmul_mma.cu: products::multiply_mma<products::MmaTile<Stored<Float16>, unsigned short, 64> >"
    use = Use(kernel, 90, 128, 0, 0, 256, frozenset(code))
    assert missing(use) == []
    assert missing(use._replace(kernel=kernel.replace("F", "Bf")))[0] == r"HMMA\.16816\.F32\.BF16"
    assert missing(use._replace(instructions=frozenset(code - {"LDSM.16.MT88.4"}))) == [r"LDSM\.16\.MT88\.4"]
    assert missing(use._replace(instructions=frozenset(code - {"LDGSTS.E.BYPASS.128.ZFILL"}))) == COPIED
    rounding = use._replace(kernel=kernel.replace("unsigned short", "float"))
    assert missing(rounding._replace(instructions=frozenset(code - {"LDGSTS.E.BYPASS.128.ZFILL"}))) == []
    assert missing(use._replace(architecture=75, instructions=frozenset())) == []
    kernel = "matmul.cu: products::multiply<products::Tile<float, 32, 32, 16, 4, 4> >"
    assert missing(use._replace(kernel=kernel)) == ["FFMA"]


@needs_nvcc
@pytest.mark.nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_kernels(source: Path) -> None:
    uses = compiled(source)
    assert {use.architecture for use in uses} == set(ARCHITECTURES)
    assert problems(uses, json.loads(RECORD.read_text())) == []
    if kernel_resources.disassembler() is None:
        pytest.skip("machine code was NOT looked at: there is no nvdisasm (pip install nvidia-cuda-nvdisasm)")
    assert all(use.instructions for use in uses)
    assert {f"{use.kernel} for sm_{use.architecture}": lacks for use in uses if (lacks := missing(use))} == {}
