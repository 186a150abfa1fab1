import numpy as np
import pytest
from helpers.arrays import LAYOUTS, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double
from helpers.properties import LONG
from hypothesis import assume, given
from hypothesis import strategies as st
from tilefuse import reference as ref
from tilefuse._device import native
from tilefuse.ops._windows import windows
from tilefuse.reference.activations import FORWARD, NEEDS_INPUT, activate, activate_backward

DTYPES = [np.float32, np.float64]
GEOMETRIES = [
    {},
    {"padding": "same"},
    {"strides": 1, "padding": "same"},
    {"strides": (3, 1)},
    {"strides": 2, "padding": ((0, 1), (1, 0))},
    {"strides": 4},
]


def arrays(make, shape, pool_size, dtype, seed=0, strides=None, padding="valid"):
    """x and dy of a pooling."""
    rng = np.random.default_rng(seed)
    kernel = (pool_size, pool_size) if isinstance(pool_size, int) else pool_size
    out = windows(shape[1:3], kernel, kernel if strides is None else strides, padding).out
    return make(rng, shape, dtype), make(rng, (shape[0], *out, shape[3]), dtype)


def check_close(actual, exact, terms):
    assert_close(actual, exact, magnitude=np.maximum(np.abs(exact), 4), terms=terms)


def check_integers(ops, shape, pool_size, dtype=np.float32, layout="contiguous", **how):
    """Maxima are exact, and means are exact sums, divided; the means' gradients are rounded fractions."""
    lay = LAYOUTS[layout]
    x, dy = arrays(integers, shape, pool_size, dtype, **how)
    y = ops.max_pool2d(lay(x), pool_size, **how)
    assert y.dtype == dtype
    assert_same(y, ref.max_pool2d(x, pool_size, **how))
    dx = ops.max_pool2d_backward(lay(dy), lay(x), pool_size, **how)
    assert dx.dtype == dtype
    assert_same(dx, ref.max_pool2d_backward(dy, x, pool_size, **how))
    for count_padding in (False, True):
        y = ops.avg_pool2d(lay(x), pool_size, **how, count_padding=count_padding)
        assert y.dtype == dtype
        assert_same(y, ref.avg_pool2d(x, pool_size, **how, count_padding=count_padding))
        dx = ops.avg_pool2d_backward(lay(dy), lay(x), pool_size, **how, count_padding=count_padding)
        assert dx.dtype == dtype
        exact = double(ref.avg_pool2d_backward, dy, x, pool_size, **how, count_padding=count_padding)
        check_close(dx, exact, terms=np.prod(pool_size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool_size", [1, 2, 3, (2, 4), (3, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("how", GEOMETRIES, ids=str)
def test_integers(ops, pool_size, how, dtype):
    if "padding" in how and how["padding"] != "same" and 1 in np.atleast_1d(pool_size):
        pytest.skip("windows with nothing but padding")
    for c in (1, 3, 8, 17, 33, 72):
        check_integers(ops, (2, 9, 10, c), pool_size, dtype, **how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 24, 21, 5), (1, 20, 31, 40), (3, 17, 16, 1)], ids=str)
def test_large_windows(ops, shape, dtype):
    """Of more than 256 elements, whose number does not fit a byte."""
    for pool_size, how in (((17, 16), {}), ((16, 16), {}), ((13, 20), {"strides": 5, "padding": "same"})):
        check_integers(ops, shape, pool_size, dtype, **how)
    check_integers(ops, shape, shape[1:3], dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(ops, layout):
    check_integers(ops, (2, 6, 7, 5), 2, layout=layout)
    check_integers(ops, (2, 6, 7, 8), (3, 2), layout=layout, padding="same", strides=2)


@pytest.mark.parametrize("shape", [(0, 5, 5, 3), (2, 1, 5, 3), (2, 5, 5, 0), (2, 0, 4, 3)], ids=str)
def test_nothing(ops, shape):
    check_integers(ops, shape, 2)


CASES = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(1, 40)),
        "pool_size": st.tuples(st.integers(1, 7), st.integers(1, 7)),
        "strides": st.one_of(st.none(), st.tuples(st.integers(1, 8), st.integers(1, 8))),
        "padding": st.one_of(
            st.sampled_from(["valid", "same"]),
            st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4)) for _ in range(2)]),
        ),
        "dtype": st.sampled_from(DTYPES),
    }
)


def check_case(ops, case):
    if not isinstance(case["padding"], str):
        assume(all(max(sides) < n for sides, n in zip(case["padding"], case["pool_size"], strict=True)))
    check_integers(ops, **case)


@given(CASES)
def test_any_geometry(ops, case):
    check_case(ops, case)


@pytest.mark.fuzz
@LONG
@given(CASES)
def test_any_geometry_at_length(ops, case):
    check_case(ops, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 7, 7, 24), (1, 40, 50, 3), (2, 56, 56, 1), (5, 1, 1, 9), (1, 9, 13, 100)], ids=str
)
def test_global_means(ops, shape, dtype):
    rng = np.random.default_rng(0)
    x, dy = normal(rng, shape, dtype), normal(rng, shape[::3], dtype)
    y, pixels = ops.global_avg_pool2d(x), shape[1] * shape[2]
    assert y.dtype == dtype
    size = double(ref.global_avg_pool2d, np.abs(x))
    assert_close(y, double(ref.global_avg_pool2d, x), magnitude=size, terms=shape[1] + shape[2])
    dx = ops.global_avg_pool2d_backward(dy, x)
    assert dx.dtype == dtype
    assert_close(dx, double(ref.global_avg_pool2d_backward, dy, x))
    same = ops.avg_pool2d(x, shape[1:3])
    assert_same_bits(y, same[:, 0, 0])
    assert_same_bits(ops.avg_pool2d_backward(dy[:, None, None], x, shape[1:3]), dx)
    whole = np.full(shape, 3, dtype)
    assert_same(ops.global_avg_pool2d(whole), np.full(shape[::3], 3 * pixels / pixels))


@pytest.mark.parametrize("how", GEOMETRIES, ids=str)
def test_random(ops, how):
    x, dy = arrays(normal, (2, 13, 12, 20), 3, np.float32, **how)
    assert_same(ops.max_pool2d(x, 3, **how), ref.max_pool2d(x, 3, **how))
    exact = double(ref.max_pool2d_backward, dy, x, 3, **how)
    check_close(ops.max_pool2d_backward(dy, x, 3, **how), exact, terms=9)
    check_close(ops.avg_pool2d(x, 3, **how), double(ref.avg_pool2d, x, 3, **how), terms=9)
    exact = double(ref.avg_pool2d_backward, dy, x, 3, **how)
    check_close(ops.avg_pool2d_backward(dy, x, 3, **how), exact, terms=9)


@pytest.mark.parametrize("c", [1, 9, 32])
def test_nan_is_in_its_windows(ops, c):
    clean, dy = arrays(normal, (1, 9, 9, c), 3, np.float32, strides=2)
    for name in ("max_pool2d", "avg_pool2d"):
        expected = getattr(ops, name)(clean, 3, 2)
        for place in ((4, 4), (0, 0), (8, 8), (3, 5)):
            x = clean.copy()
            x[0, *place, 0] = np.nan
            y = getattr(ops, name)(x, 3, 2)
            i, j = (np.abs(np.arange(4) * 2 + 1 - n) <= 1 for n in place)
            inside = i[:, None] & j
            assert np.isnan(y[0, inside, 0]).all()
            assert_same(y[0, ~inside, 0], expected[0, ~inside, 0])
            assert_same(y[..., 1:], expected[..., 1:])
    dy = integers(np.random.default_rng(1), dy.shape, np.float32)
    assert_same(ops.max_pool2d_backward(dy, x, 3, 2), ref.max_pool2d_backward(dy, x, 3, 2))


def test_of_several_nans_the_first_is_the_maximum(ops):
    x = np.array([[1, np.nan, np.inf], [np.nan, 2, 3]], np.float32).reshape(1, 2, 3, 1)
    dy = np.array([5, 7], np.float32).reshape(1, 1, 2, 1)
    assert_same(ops.max_pool2d(x, 2, 1).ravel(), np.full(2, np.nan))
    assert_same(ops.max_pool2d_backward(dy, x, 2, 1).ravel(), [0, 12, 0, 0, 0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity(ops, dtype):
    """Where all is minus infinity the first element is the maximum, and padding never is."""
    x = np.full((1, 4, 4, 9), -np.inf, dtype)
    dy = np.arange(1, 1 + 9 * 9, dtype=dtype).reshape(1, 3, 3, 9)
    how = {"strides": 2, "padding": 1}
    assert_same(ops.max_pool2d(x, 2, **how), np.full_like(dy, -np.inf))
    dx = ops.max_pool2d_backward(dy, x, 2, **how)
    assert_same(dx, ref.max_pool2d_backward(dy, x, 2, **how))
    assert dx.sum() == dy.sum()
    x[0, 1, 1, 2] = np.inf
    assert_same(ops.max_pool2d(x, 2, **how), ref.max_pool2d(x, 2, **how))
    assert_same(ops.max_pool2d_backward(dy, x, 2, **how), ref.max_pool2d_backward(dy, x, 2, **how))
    x[0, 1, 1, :] = 1
    assert np.isneginf(ops.avg_pool2d(x, 2, **how)).all()


def test_gradients_that_are_not_finite_stay_at_the_maximum(ops):
    x = integers(np.random.default_rng(0), (1, 6, 6, 12), np.float32)
    dy = np.full((1, 3, 3, 12), np.nan, np.float32)
    dx = ops.max_pool2d_backward(dy, x)
    assert np.isnan(dx).sum() == dy.size
    assert_same(dx, ref.max_pool2d_backward(dy, x))


@pytest.mark.parametrize("shape", [(9, 17, 15, 40), (1, 30, 8, 100), (2, 9, 9, 3)], ids=str)
def test_bits_do_not_depend_on_threads(ops, device, set_num_threads, shape):
    x, dy = arrays(normal, shape, 3, np.float32, strides=2, padding="same")
    results = []
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        results.append(
            [
                ops.max_pool2d(x, 3, 2, "same"),
                ops.max_pool2d_backward(dy, x, 3, 2, "same"),
                ops.avg_pool2d(x, 3, 2, "same"),
                ops.avg_pool2d_backward(dy, x, 3, 2, "same"),
                ops.global_avg_pool2d(x),
                ops.global_avg_pool2d_backward(dy[:, 0, 0], x),
            ]
        )
    for other in results[1:]:
        for a, e in zip(other, results[0], strict=True):
            assert_same_bits(a, e)


@pytest.mark.parametrize("c", [1, 8, 33])
def test_both_results_of_one_pass(device, c):
    """What the compiled step asks for: the maxima, and where they are."""
    x, _ = arrays(integers, (2, 8, 9, c), 2, np.float32)
    geometry = (4, 4, 2, 2, 1, 1, 0, 0, 1)
    y = np.full((2, 4, 4, c), np.nan, np.float32)
    argmax = np.full(y.shape, 255, np.uint8)
    native().pool2d("max", x, y, (2, 2), geometry, argmax=argmax)
    assert_same(y, ref.max_pool2d(x))
    cut = x[:, :, :8].reshape(2, 4, 2, 4, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(*y.shape, 4)
    assert_same(argmax, cut.argmax(axis=-1))


@pytest.mark.parametrize("activation", FORWARD)
@pytest.mark.parametrize("c", [1, 8, 33])
def test_derivative_of_what_made_x(device, activation, c):
    """What the compiled step asks for: the gradient before an activation and a dropout."""
    rng = np.random.default_rng(3)
    z, dy = arrays(normal, (2, 7, 8, c), 2, np.float64)
    x = activate(z, activation)
    at = z if activation in NEEDS_INPUT else x
    mask = rng.integers(0, 2, x.shape).astype(np.uint8)
    geometry, alpha = (3, 4, 2, 2, 1, 1, 0, 0, 1), native().activations()[activation]
    argmax = np.zeros(dy.shape, np.uint8)
    native().pool2d("max", x, None, (2, 2), geometry, argmax=argmax)
    for kind, backward in (("max", ref.max_pool2d_backward), ("average", ref.avg_pool2d_backward)):
        plain = backward(dy, x)
        for kept, scale in ((None, 1.0), (mask, 2.0)):
            dx = np.full(x.shape, np.nan)
            derivative = (activation, alpha, at, kept, scale)
            native().pool2d_backward(kind, dy, dx, (2, 2), geometry, False, argmax, *derivative)
            dropped = plain if kept is None else plain * mask * scale
            expected = activate_backward(dropped, x, activation, x=z)
            np.testing.assert_allclose(dx, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((5, 5, 3), np.float32)}, r"x has shape \(5, 5, 3\); expected four axes"),
        ({"pool_size": 0}, "pool_size is 0; expected a positive integer"),
        ({"pool_size": (2, 2, 2)}, "pool_size is"),
        ({"strides": -1}, "strides is -1"),
        ({"padding": "full"}, "padding is 'full'; expected 'valid', 'same'"),
        ({"padding": 2}, "padding is 2, which leaves windows of pool_size"),
        ({"padding": ((0, 3), (0, 0)), "strides": 1}, "with no element of x"),
        ({"x": np.zeros((1, 0, 4, 1), np.float32), "padding": 1}, "with no element of x"),
        ({"pool_size": 2**16, "padding": 2**15}, "expected windows of at most 2147483647 elements"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_errors(ops, name, change, message):
    arguments = {"x": np.zeros((2, 5, 5, 3), np.float32)} | change
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(**arguments)


def test_other_errors(ops):
    x, dy = arrays(normal, (2, 6, 6, 3), 2, np.float32)
    for name in ("max_pool2d_backward", "avg_pool2d_backward"):
        with pytest.raises(ValueError, match="dy has shape"):
            getattr(ops, name)(dy[:, 1:], x)
        with pytest.raises(TypeError, match="dtype"):
            getattr(ops, name)(dy.astype(np.float64), x)
    with pytest.raises(ValueError, match="dy has shape"):
        ops.global_avg_pool2d_backward(dy, x)
    with pytest.raises(ValueError, match="no pixels"):
        ops.global_avg_pool2d(x[:, :0])
    with pytest.raises(TypeError, match="dtype"):
        ops.max_pool2d(x.astype(np.int32))
