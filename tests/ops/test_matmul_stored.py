"""Products of arrays of 16 bits: bfloat16 everywhere, float16 on CUDA devices."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import exact_product, product_magnitude

KINDS = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
SHAPES = [(1, 1, 1), (3, 5, 7), (64, 64, 128), (33, 70, 1100), (1, 65, 40), (130, 1, 33), (128, 160, 513)]
# Few rows or columns, which are not packed, and sums of several blocks.
FEW = [(1, 130, 96), (2, 70, 2100), (16, 40, 96), (200, 1, 64), (1100, 30, 2501), (5, 131, 4500)]


@pytest.fixture(params=KINDS)
def kind(request, device):
    if device == "cpu" and request.param == "float16":
        pytest.skip("the CPU has no products of float16")
    return KINDS[request.param]


def narrow(rng, shape, kind, make=normal):
    return make(rng, shape, "f").astype(kind)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES + FEW)
def test_integers_are_exact(ops, kind, m, n, k):
    rng = np.random.default_rng((m, n, k))
    a, b = narrow(rng, (m, k), kind, integers), narrow(rng, (k, n), kind, integers)
    exact = a.astype("f") @ b.astype("f")
    for flip_a, flip_b in itertools.product([False, True], repeat=2):
        left = np.ascontiguousarray(a.T) if flip_a else a
        right = np.ascontiguousarray(b.T) if flip_b else b
        options = {"transpose_a": flip_a, "transpose_b": flip_b}
        c = ops.matmul(left, right, **options)
        assert c.dtype == kind
        assert_same(c, exact.astype(kind))
        out = Guarded((m, n), "f", pad=3)
        assert ops.matmul(left, right, out=out.array, **options) is out.array
        assert_same(out.check(), exact)


def test_layouts_and_batches(ops, kind):
    rng = np.random.default_rng(1)
    a, b = narrow(rng, (2, 3, 35, 20), kind, integers), narrow(rng, (3, 20, 40), kind, integers)
    exact = (a.astype("f") @ b.astype("f")).astype(kind)
    assert_same(ops.matmul(a, b), exact)
    assert_same(ops.matmul(a[:, :1], b), (a[:, :1].astype("f") @ b.astype("f")).astype(kind))
    for layout_a, layout_b in itertools.product(LAYOUTS, LAYOUTS):
        assert_same(ops.matmul(LAYOUTS[layout_a](a), LAYOUTS[layout_b](b)), exact)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(3, 40, 18), (1, 33, 64), (40, 1, 64), (50, 70, 96), (9, 20, 2100)]
)
def test_rows_that_begin_anywhere(ops, kind, m, n, k):
    """Numbers are multiplied in pairs, which must not reach past a row, nor begin where rows do not."""
    rng = np.random.default_rng((m, n, k))
    a, b = narrow(rng, (m, k), kind, integers), narrow(rng, (k, n), kind, integers)
    exact = a.astype("f") @ b.astype("f")
    for first, last, flip_a, flip_b in itertools.product([0, 1], [0, 1, 2], [False, True], [False, True]):
        operands = []
        for x, flip in ((a, flip_a), (b, flip_b)):
            lying = x.T if flip else x
            memory = np.full((lying.shape[0], first + lying.shape[1] + last), np.nan, kind)
            inside = memory[:, first : first + lying.shape[1]]
            inside[...] = lying
            operands.append(inside)
        out = np.ones((m, n), kind)
        ops.matmul(*operands, transpose_a=flip_a, transpose_b=flip_b, out=out, beta=2.0)
        assert_same(out, (exact + 2).astype(kind))


def test_sums_are_float32_and_rounded_once(ops, kind):
    for m, n, k in SHAPES + FEW:
        rng = np.random.default_rng((m, n, k))
        a, b = narrow(rng, (m, k), kind), narrow(rng, (k, n), kind)
        bias = narrow(rng, (n,), kind)
        x, y = a.astype("f"), b.astype("f")
        out = np.empty((m, n), np.float32)
        ops.matmul(a, b, bias=bias, out=out)
        exact = exact_product(x, y) + bias.astype("d")
        assert_close(out, exact, magnitude=product_magnitude(x, y) + np.abs(bias.astype("d")), terms=k + 1)
        assert_same(ops.matmul(a, b, bias=bias), out.astype(kind))
        assert_same(ops.matmul(a, b, bias=bias.astype("f")), out.astype(kind))


def test_beta_and_activation(ops, kind):
    rng = np.random.default_rng(2)
    a, b, c = (narrow(rng, shape, kind, integers) for shape in ((70, 40), (40, 50), (70, 50)))
    expected = np.maximum(a.astype("f") @ b.astype("f") + 2 * c.astype("f"), 0)
    wide = c.astype("f")
    ops.matmul(a, b, out=wide, beta=2.0, activation="relu")
    assert_same(wide, expected)
    strided = np.zeros((70, 100), kind)[:, ::2]
    strided[...] = c
    for out in (c, strided):
        assert ops.matmul(a, b, out=out, beta=2.0, activation="relu") is out
        assert_same(out, expected.astype(kind))


def test_infinity_nan_and_rounding(ops, kind):
    a = np.array([[1, 2, 0], [np.inf, 1, 0], [np.nan, 1, 1]], "f").astype(kind)
    b = np.array([[3.0], [1.0], [1.0]], "f").astype(kind)
    assert_same(ops.matmul(a, b), np.array([[5], [np.inf], [np.nan]], "f").astype(kind))
    # 1 + 2^-9 and 1 + 3 * 2^-9 are ties of bfloat16, 1 + 2^-11 and 1 + 3 * 2^-11 of float16
    small = 2.0 ** -(9 if kind.name == "bfloat16" else 11) * 2
    ties = np.array([[1, small / 2], [1, 3 * small / 2], [-1, -small / 2], [1, small / 2 + small / 64]], "f")
    ones = np.ones((2, 1), kind)
    assert_same(ops.matmul(ties.astype(kind), ones), ties.sum(1, keepdims=True).astype(kind))


@pytest.mark.parametrize(("m", "n", "k"), [(257, 129, 300), (3, 1000, 2100), (16, 400, 2048), (900, 1, 2048)])
def test_same_bits_for_any_number_of_threads(ops, kind, set_num_threads, m, n, k):
    rng = np.random.default_rng(8)
    a, b = narrow(rng, (m, k), kind), narrow(rng, (n, k), kind)
    for right, transposed in ((b, True), (np.ascontiguousarray(b.T), False)):
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(ops.matmul(a, right, activation="gelu", transpose_b=transposed))
        assert_same_bits(results[1].view(np.uint16), results[0].view(np.uint16))
        assert_same_bits(results[2].view(np.uint16), results[0].view(np.uint16))


def test_bad_input(ops, device):
    half = np.ones((3, 3), KINDS["bfloat16"])
    with pytest.raises(TypeError, match="b has dtype float32, and a bfloat16: pass all arrays in one dtype"):
        ops.matmul(half, half.astype("f"))
    with pytest.raises(TypeError, match="b has dtype bfloat16; expected float32 or float64"):
        ops.matmul(half.astype("f"), half)
    with pytest.raises(TypeError, match="out has dtype float64, and a bfloat16"):
        ops.matmul(half, half, out=np.ones((3, 3)))
    with pytest.raises(TypeError, match="bias has dtype float64, and a bfloat16"):
        ops.matmul(half, half, bias=np.ones(3))
    with pytest.raises(ValueError, match="precision is 'ieee' and the arrays are of bfloat16; convert"):
        ops.matmul(half, half, precision="ieee")
    if device == "cpu":
        with pytest.raises(TypeError, match=r"a has dtype float16, which CUDA devices alone multiply"):
            ops.matmul(half.astype(np.float16), half.astype(np.float16))
