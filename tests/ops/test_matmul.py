import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double, exact_product, product_magnitude
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref
from tilefuse.reference.activations import FORWARD, activate

DTYPES = [np.float32, np.float64]
TRANSPOSES = list(itertools.product([False, True], [False, True]))
# Register tiles are 6, 8 or 12 rows by 8, 16, 24, 32 or 64 columns, panels about 256 or 512 deep.
ROWS = (0, 1, 2, 5, 6, 7, 8, 9, 11, 12, 13, 37)
COLUMNS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65)
DEPTHS = (0, 1, 2, 3, 17, 64)
DEEP = (255, 256, 257, 511, 512, 513, 1031)
LARGE = [
    (129, 257, 520),
    (500, 333, 300),
    (1, 3001, 512),
    (3001, 1, 512),
    (257, 10, 1031),
    (12, 64, 5003),
    (97, 769, 3),
]
# Few rows: sums longer than are added up at a time, rows of b a multiple of 2 KB apart, few columns.
FEW = [
    (1, 37, 5000),
    (2, 300, 90),
    (3, 515, 33),
    (5, 131, 4500),
    (9, 6, 2100),
    (16, 40, 2049),
    (17, 64, 272),
    (40, 1024, 300),
    (20, 4096, 70),
]


def given_transposed(x, transposed):
    """`x`, or its values laid out so that `transposed` makes them `x` again."""
    return np.ascontiguousarray(x.swapaxes(-1, -2)) if transposed else x


def check_integers(ops, m, n, k, dtype, transpose_a=False, transpose_b=False):
    rng = np.random.default_rng((m, n, k))
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    out = Guarded((m, n), dtype)
    result = ops.matmul(
        given_transposed(a, transpose_a),
        given_transposed(b, transpose_b),
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        out=out.array,
    )
    assert result is out.array
    assert_same(out.check(), np.matmul(a.astype(np.float64), b.astype(np.float64)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("transpose_a", "transpose_b"), TRANSPOSES)
def test_integers_are_exact(ops, dtype, transpose_a, transpose_b):
    for m, n, k in itertools.product(ROWS, COLUMNS, DEPTHS):
        check_integers(ops, m, n, k, dtype, transpose_a, transpose_b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("transpose_a", "transpose_b"), TRANSPOSES)
def test_integers_are_exact_in_deep_products(ops, dtype, transpose_a, transpose_b):
    for m, n, k in itertools.product((1, 6, 13), (1, 9, 33, 65), DEEP):
        check_integers(ops, m, n, k, dtype, transpose_a, transpose_b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), LARGE)
def test_integers_are_exact_in_large_products(ops, dtype, m, n, k):
    for transpose_a, transpose_b in TRANSPOSES:
        check_integers(ops, m, n, k, dtype, transpose_a, transpose_b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("transpose_a", "transpose_b"), TRANSPOSES)
@pytest.mark.parametrize(("m", "n", "k"), FEW)
def test_integers_are_exact_in_products_of_few_rows(ops, m, n, k, dtype, transpose_a, transpose_b):
    check_integers(ops, m, n, k, dtype, transpose_a, transpose_b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 17, 256, 513, 2000])
def test_rounding_error_is_bounded(ops, dtype, k):
    rng = np.random.default_rng(k)
    a, b = normal(rng, (19, k), dtype), normal(rng, (k, 35), dtype)
    assert_close(ops.matmul(a, b), exact_product(a, b), magnitude=product_magnitude(a, b), terms=k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout_b", LAYOUTS)
@pytest.mark.parametrize("layout_a", LAYOUTS)
def test_layouts_of_the_inputs(ops, layout_a, layout_b, dtype):
    rng = np.random.default_rng(1)
    for m, n, k in [(1, 1, 1), (7, 33, 19), (40, 70, 300)]:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        laid_a, laid_b = LAYOUTS[layout_a](a), LAYOUTS[layout_b](b)
        assert_same(ops.matmul(laid_a, laid_b), a @ b)
        assert_same(laid_a, a)
        assert_same(laid_b, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pad", [0, 1, 5])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_of_the_output(ops, transposed, pad, dtype):
    rng = np.random.default_rng(2)
    for m, n, k in [(1, 1, 1), (7, 33, 19), (13, 17, 0), (40, 70, 300)]:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        out = Guarded((m, n), dtype, pad=pad, transposed=transposed)
        assert ops.matmul(a, b, out=out.array) is out.array
        assert_same(out.check(), a @ b)
        bias = integers(rng, (n,), dtype)
        ops.matmul(a, b, bias=bias, activation="relu", out=out.array, beta=2.0)
        assert_same(out.check(), np.maximum(3 * (a @ b) + bias, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lead_a", "lead_b"),
    [
        ((2,), (2,)),
        ((3,), ()),
        ((), (3,)),
        ((4, 1), (5,)),
        ((2, 1, 3), (1, 4, 1)),
        ((0,), ()),
        ((2, 0), (1, 1)),
        ((1, 1, 1, 2), (2, 1)),
    ],
)
def test_leading_axes_broadcast(ops, lead_a, lead_b, dtype):
    rng = np.random.default_rng(3)
    for transpose_a, transpose_b in TRANSPOSES:
        a, b = integers(rng, (*lead_a, 5, 7), dtype), integers(rng, (*lead_b, 7, 9), dtype)
        c = ops.matmul(
            given_transposed(a, transpose_a),
            given_transposed(b, transpose_b),
            transpose_a=transpose_a,
            transpose_b=transpose_b,
        )
        assert c.dtype == dtype
        assert_same(c, a @ b)


def test_batch_with_strides_of_its_own(ops):
    rng = np.random.default_rng(4)
    a, b = integers(rng, (6, 3, 5, 7), "f"), integers(rng, (3, 6, 7, 4), "f")
    assert_same(ops.matmul(a[::-2], b.transpose(1, 0, 2, 3)[1::2]), a[::-2] @ b.transpose(1, 0, 2, 3)[1::2])
    shared = np.broadcast_to(a[0, 0], (6, 3, 5, 7))
    out = Guarded((6, 3, 5, 4), "f", pad=3)
    ops.matmul(shared, b.transpose(1, 0, 2, 3), out=out.array)
    assert_same(out.check(), shared @ b.transpose(1, 0, 2, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, *FORWARD])
def test_bias_and_activation(ops, activation, dtype):
    rng = np.random.default_rng(5)
    for m, n, k in [(1, 1, 1), (7, 33, 19), (64, 10, 300), (5, 9, 0)]:
        a, b, bias = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype), normal(rng, (n,), dtype)
        c = ops.matmul(a, b, bias=bias, activation=activation)
        exact = double(activate, exact_product(a, b) + bias, activation)
        # no activation is steeper than 1.76 (selu)
        assert_close(
            c, exact, magnitude=1.76 * (product_magnitude(a, b) + np.abs(bias)) + np.abs(exact), terms=k
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [0, 1, 7, 600])
def test_beta(ops, k, dtype):
    rng = np.random.default_rng(6)
    a, b, c = integers(rng, (13, k), dtype), integers(rng, (k, 34), dtype), integers(rng, (13, 34), dtype)
    bias = integers(rng, (34,), dtype)
    for beta in (1.0, -2.0, 0.5):
        out = c.copy()
        assert_same(ops.matmul(a, b, out=out, beta=beta), a @ b + beta * c)
        out = c.copy()
        ops.matmul(a, b, bias=bias, activation="relu", out=out, beta=beta)
        assert_same(out, np.maximum(a @ b + beta * c + bias, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_zero_does_not_read_the_output(ops, dtype):
    for m, n, k in [(1, 1, 0), (7, 33, 0), (7, 33, 5), (40, 70, 600)]:
        for poison in (np.nan, np.inf):
            out = np.full((m, n), poison, dtype)
            ops.matmul(np.ones((m, k), dtype), np.ones((k, n), dtype), out=out, beta=0.0)
            assert_same(out, np.full((m, n), k))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity(ops, dtype):
    rng = np.random.default_rng(7)
    for m, n, k in [(7, 33, 19), (13, 65, 300)]:
        a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
        a[rng.random(a.shape) < 0.01], b[rng.random(b.shape) < 0.01] = np.inf, -np.inf
        a[0, 1], b[2, 3] = np.nan, np.nan
        with np.errstate(invalid="ignore"):
            expected = a.astype(np.float64) @ b.astype(np.float64)
        assert np.isinf(expected).any()
        assert np.isnan(expected[0]).all()
        assert np.isfinite(expected).any()
        assert_same(ops.matmul(a, b), expected)
        assert_same(ops.matmul(a, b, activation="relu"), ref.relu(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_overflow_gives_infinity(ops, dtype):
    big = np.full((2, 2), np.finfo(dtype).max, dtype)
    assert_same(ops.matmul(big, big), np.full((2, 2), np.inf))


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, dtype):
    rng = np.random.default_rng(8)
    shapes = [(257, 129, 300), (3, 1030, 700), (1030, 3, 700), (64, 64, 5000), (5, 7, 3), (12, 259, 2100)]
    for (m, n, k), transposed in itertools.product(shapes, [False, True]):
        a, b, bias = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype), normal(rng, (n,), dtype)
        b = given_transposed(b, transposed)
        results = []
        for threads in (1, 2, 3, 2):
            set_num_threads(threads)
            results.append(ops.matmul(a, b, bias=bias, activation="gelu", transpose_b=transposed))
        for result in results[1:]:
            assert_same_bits(result, results[0])


def test_long_sums_of_few_rows_are_added_up_in_parts(ops):
    rng = np.random.default_rng(10)
    for m, transposed in itertools.product([1, 2, 3, 5], [False, True]):
        a, b = rng.random((m, 1 << 18), dtype=np.float32), rng.random((1 << 18, 17), dtype=np.float32)
        result = ops.matmul(a, given_transposed(b, transposed), transpose_b=transposed)
        np.testing.assert_allclose(result, a.astype(np.float64) @ b.astype(np.float64), rtol=5e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_of_few_rows(ops, set_num_threads, threads, dtype):
    set_num_threads(threads)
    rng = np.random.default_rng(9)
    for lead, m, n, k in [((4, 6), 16, 65, 257), ((2,), 9, 261, 1030), ((7,), 2, 20, 40)]:
        a, b = integers(rng, (*lead, m, k), dtype), integers(rng, (*lead, n, k), dtype)
        out, addend = Guarded((*lead, m, n), dtype), integers(rng, (*lead, m, n), dtype)
        out.array[...] = addend
        ops.matmul(a, b, transpose_b=True, beta=2, out=out.array)
        expected = np.matmul(a.astype(np.float64), b.astype(np.float64).swapaxes(-1, -2))
        assert_same(out.check(), expected + 2 * addend)


def check_any_problem(ops, m, n, k, lead, layouts, dtype, with_bias):
    rng = np.random.default_rng((m, n, k))
    a = LAYOUTS[layouts[0]](integers(rng, (*lead, m, k), dtype))
    b = LAYOUTS[layouts[1]](integers(rng, (*lead[-1:], k, n), dtype))
    bias = integers(rng, (n,), dtype) if with_bias else None
    out = Guarded((*lead, m, n), dtype, pad=m % 3)
    ops.matmul(a, b, bias=bias, out=out.array)
    assert_same(out.check(), ref.matmul(a.astype(np.float64), b.astype(np.float64), bias=bias))


problems = given(
    m=st.integers(0, 70),
    n=st.integers(0, 140),
    k=st.integers(0, 600),
    lead=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    layouts=st.tuples(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(sorted(LAYOUTS))),
    dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
)


@problems
def test_any_problem(ops, **problem):
    check_any_problem(ops, **problem)


@pytest.mark.fuzz
@LONG
@problems
def test_any_problem_long(ops, **problem):
    check_any_problem(ops, **problem)


def floats(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("args", "options", "error", "says"),
    [
        ((floats(2, 3), floats(4, 5)), {}, ValueError, r"\(2, 3\).*\(4, 5\)"),
        ((floats(2, 3), floats(3, 5)), {"transpose_a": True}, ValueError, "transpose_a"),
        ((floats(2, 3), floats(3, 5)), {"transpose_b": True}, ValueError, "transpose_b"),
        ((floats(2, 2, 3), floats(3, 3, 5)), {}, ValueError, r"\(2, 2, 3\).*\(3, 3, 5\)"),
        ((floats(2, 3), floats(3, 5)), {"bias": floats(4)}, ValueError, r"bias.*\(4,\)"),
        ((floats(2, 3), floats(3, 5)), {"out": floats(2, 4)}, ValueError, r"out.*\(2, 4\)"),
        ((floats(2, 3), floats(3, 5)), {"beta": 1.0}, ValueError, "out"),
        ((floats(2, 3), floats(3, 5)), {"activation": "rleu"}, ValueError, "'rleu'.*relu"),
        ((floats(2, 3), floats(3, 5)), {"precision": "float17"}, ValueError, "float17.*float32"),
        ((floats(2, 3), floats(3, 5).astype(np.float64)), {}, TypeError, "float32.*float64|float64.*float32"),
        ((floats(2, 3).astype(np.int32), floats(3, 5)), {}, TypeError, "int32"),
        ((floats(2, 3), floats(3, 5).astype(np.float16)), {}, TypeError, "float16.*float32"),
        ((floats(2, 3), floats(3, 5)), {"out": floats(2, 5).astype(np.float64)}, TypeError, "out.*float64"),
    ],
)
def test_bad_arguments(ops, args, options, error, says):
    with pytest.raises(error, match=rf"(?s){says}"):
        ops.matmul(*args, **options)


def test_read_only_output(ops):
    out = floats(2, 2)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out.*read-only"):
        ops.matmul(floats(2, 3), floats(3, 2), out=out)


def test_output_may_overlap_an_input(ops):
    a = integers(np.random.default_rng(9), (40, 40), "f")
    expected = a @ a
    ops.matmul(a, a, out=a)
    assert_same(a, expected)
    shifted = np.concatenate([expected, expected])
    ops.matmul(shifted[:40], expected, out=shifted[1:41])
    assert_same(shifted[1:41], expected @ expected)
