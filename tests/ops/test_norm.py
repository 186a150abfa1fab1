import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref
from tilefuse._device import native
from tilefuse.reference.activations import FORWARD, NEEDS_INPUT

DTYPES = [np.float32, np.float64]
ROWS = (1, 2, 3, 7, 31, 33, 65, 257)
COLUMNS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 64, 65, 127, 260)
TERMS = 32  # rounding errors must not grow with the number of rows or columns beyond a block's


def wide(*arrays):
    """The arrays in more precision than they have; themselves if they have it already."""
    widened = [None if a is None else a.astype(np.longdouble, copy=False) for a in arrays]
    return widened if len(widened) > 1 else widened[0]


def exactly(function, *arrays, **options):
    with np.errstate(all="ignore"):
        return function(*(a if a is None or not hasattr(a, "dtype") else wide(a) for a in arrays), **options)


def close(actual, exact, magnitude=None, terms=TERMS, **how):
    size = exact if magnitude is None else magnitude
    # Numbers that are denormal, or come from such, don't count.
    assert_close(actual, exact, magnitude=np.abs(size), terms=terms, flushed=64.0, **how)


def problem(shape, dtype, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    x, dy, residual = (normal(rng, shape, dtype) for _ in range(3))
    gamma, beta, mean = (normal(rng, shape[-1:], dtype) for _ in range(3))
    return x + dtype(offset), dy, residual, gamma, beta, mean, rng.uniform(0.5, 2, shape[-1:]).astype(dtype)


def axes_of(x):
    return tuple(range(x.ndim - 1))


# ---- batch norm ----------------------------------------------------------------------------------


def check_training(ops, shape, dtype, lay=lambda a: a, offset=0.0, optional=True, seed=0):
    x, dy, residual, gamma, beta, moving_mean, moving_variance = problem(shape, dtype, seed, offset)
    if not optional:
        residual = gamma = beta = None
    moved = moving_mean.copy(), moving_variance.copy()
    laid = [None if a is None else lay(a) for a in (x, gamma, beta)]
    how = {"training": True, "momentum": 0.75, "epsilon": 1e-3}
    laid_residual = None if residual is None else lay(residual)
    y, mean, inv_std = ops.batch_norm(*laid, *moved, residual=laid_residual, **how)
    expected = wide(moving_mean, moving_variance)
    wide_residual = None if residual is None else wide(residual)
    exact, exact_mean, exact_inv_std = exactly(
        ref.batch_norm, x, gamma, beta, *expected, residual=wide_residual, **how
    )
    assert y.dtype == mean.dtype == inv_std.dtype == dtype
    spread = 1 / exact_inv_std
    close(mean, exact_mean, np.abs(exact_mean) + spread)
    # float32's means are kept in double; so rounding float64's is all that a large mean costs.
    lost = np.abs(exact_mean) * exact_inv_std if dtype == np.float64 else 0
    close(inv_std, exact_inv_std, exact_inv_std * (1 + lost))
    close(moved[0], expected[0], np.abs(moving_mean) + np.abs(exact_mean) + spread)
    close(moved[1], expected[1], moving_variance + spread**2 * (1 + lost))
    scale = exact_inv_std * (1 if gamma is None else np.abs(wide(gamma)))
    size = (np.abs(wide(x) - exact_mean) + spread * (1 + lost)) * scale
    for added in (beta, residual):
        size = size + (0 if added is None else np.abs(added))
    close(y, exact, size)

    check_gradients(ops, dy, x, gamma, mean, inv_std, lay, training=True)


def check_gradients(ops, dy, x, gamma, mean, inv_std, lay=lambda a: a, training=True):
    given = [None if a is None else lay(a) for a in (dy, x, gamma, mean, inv_std)]
    dx, dgamma, dbeta = ops.batch_norm_backward(*given, training=training)
    exact = exactly(ref.batch_norm_backward, dy, x, gamma, mean, inv_std, training=training)
    size = np.abs(wide(dy)), np.abs(wide(x) - wide(mean)) * wide(inv_std)
    scale = wide(inv_std) * (1 if gamma is None else np.abs(wide(gamma)))
    rows = max(1, dy[..., 0].size)
    of_gamma, of_beta = (size[0] * size[1]).sum(axis=axes_of(x)), size[0].sum(axis=axes_of(x))
    assert dx.dtype == dgamma.dtype == dbeta.dtype == x.dtype
    close(dgamma, exact[1], of_gamma)
    close(dbeta, exact[2], of_beta)
    close(dx, exact[0], scale * (size[0] + training * (of_beta + size[1] * of_gamma) / rows))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_of_sizes(ops, dtype):
    for rows, cols in itertools.product(ROWS, COLUMNS):
        check_training(ops, (rows, cols), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [(5000, 3), (30011, 1), (4096, 64), (2111, 33), (700, 520), (9, 5000), (4, 13, 11, 24), (17,)],
    ids=str,
)
def test_batch_norm_of_larger_sizes(ops, shape, dtype):
    check_training(ops, shape, dtype)
    check_training(ops, shape, dtype, optional=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 5), (3000, 7), (2000, 64)], ids=str)
def test_batch_norm_with_a_large_mean(ops, shape, dtype):
    for offset in (1e4, -3e5):
        check_training(ops, shape, dtype, offset=offset)


@pytest.mark.parametrize("first", [0.0, 1e4])
def test_batch_norm_of_rows_unlike_the_first(ops, first):
    x, dy, *_ = problem((3000, 6), np.float32)
    x[:100] += np.float32(first)
    x[100:] -= 50
    x[-1] = 200
    y, mean, inv_std = ops.batch_norm(x, None, None, None, None, training=True)
    exact = exactly(ref.batch_norm, x, None, None, None, None, training=True)
    for actual, expected in zip((y, mean, inv_std), exact, strict=True):
        close(actual, expected, np.abs(expected) + 1)
    check_gradients(ops, dy, x, None, mean, inv_std)


def test_batch_norm_of_a_million_rows(ops, device):
    if device != "cpu":
        pytest.skip("takes long there")
    x = normal(np.random.default_rng(0), (1 << 20, 2), np.float32) + np.float32(1000)
    _, mean, inv_std = ops.batch_norm(x, None, None, None, None, training=True, epsilon=0.0)
    close(mean, wide(x).mean(axis=0), terms=1)
    close(inv_std, 1 / wide(x).std(axis=0), terms=1)
    sums = ops.batch_norm_backward(np.ones_like(x), x, None, mean, inv_std)
    assert_same(sums[2], np.full(2, 1 << 20, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_without_training(ops, dtype):
    for shape in ((1, 1), (3, 5), (257, 33), (100, 64), (2, 7, 9, 12)):
        x, dy, residual, gamma, beta, mean, variance = problem(shape, dtype)
        before = mean.copy(), variance.copy()
        for g, b, r in ((gamma, beta, residual), (None, None, None)):
            y = ops.batch_norm(x, g, b, mean, variance, residual=r)
            exact = exactly(ref.batch_norm, x, g, b, mean, variance, residual=None if r is None else wide(r))
            close(y, exact, np.abs(exact) + 8)
        assert_same_bits(mean, before[0])
        assert_same_bits(variance, before[1])
        check_gradients(ops, dy, x, gamma, mean, (1 / np.sqrt(variance + 1e-3)).astype(dtype), training=False)


def test_integers_are_exact(ops):
    rng = np.random.default_rng(0)
    for shape in ((6, 5), (300, 40), (1000, 3), (129, 64)):
        x, dy, residual = (integers(rng, shape, np.float32) for _ in range(3))
        gamma, beta, mean = (integers(rng, shape[-1:], np.float32) for _ in range(3))
        variance = rng.choice([1, 4, 16], shape[-1:]).astype(np.float32)
        given = gamma, beta, mean, variance
        y = ops.batch_norm(x, *given, epsilon=0.0, residual=residual, activation="relu")
        assert_same(y, ref.batch_norm(x, *given, epsilon=0.0, residual=residual, activation="relu"))
        inv_std = 1 / np.sqrt(variance)
        for training in (False, True):
            backward = ops.batch_norm_backward(dy, x, gamma, mean, inv_std, training=training)
            exact = ref.batch_norm_backward(dy, x, gamma, mean, inv_std, training=training)
            for actual, expected in list(zip(backward, exact, strict=True))[training:]:
                assert_same(actual, expected)


@pytest.mark.parametrize("activation", FORWARD)
@pytest.mark.parametrize("training", [False, True])
def test_activations(ops, activation, training):
    x, dy, residual, gamma, beta, mean, variance = problem((50, 21), np.float64)
    how = {"training": training, "residual": residual}
    z = ref.batch_norm(x, gamma, beta, mean.copy(), variance.copy(), **how)
    expected = ref.batch_norm(x, gamma, beta, mean.copy(), variance.copy(), activation=activation, **how)
    y = ops.batch_norm(x, gamma, beta, mean.copy(), variance.copy(), activation=activation, **how)
    inv_std = 1 / np.sqrt(variance + 1e-3)
    if training:
        (y, mean, inv_std), expected, z = y, expected[0], z[0]
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
    given = {"z": z} if activation in NEEDS_INPUT else {}
    how = {"training": training, "activation": activation, "residual": True}
    gradients = ops.batch_norm_backward(dy, x, gamma, mean, inv_std, y, **how, **given)
    exact = ref.batch_norm_backward(dy, x, gamma, mean, inv_std, expected, z=z, **how)
    for a, e in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["linear", "relu", "gelu"])
def test_what_only_programs_want_of_batch_norm(device, activation, dtype):
    """The output before the activation, results in place of inputs, the derivative at x, single gradients."""
    for shape in ((1, 1), (40, 5), (70, 33), (300, 64)):
        x, dy, residual, gamma, beta, mean, variance = problem(shape, dtype)
        z, y = Guarded(shape, dtype), x.copy()
        given = gamma, beta, mean, variance
        native().batch_norm(
            y, *given, y, False, 0.9, 1e-3, activation, 0.0, residual, None, None, z.array
        )  # y takes x's place
        exact_z = exactly(ref.batch_norm, x, *given, residual=wide(residual))
        exact = exactly(ref.batch_norm, x, *given, activation=activation, residual=wide(residual))
        close(z.check(), exact_z, np.abs(exact_z) + 8)
        close(y, exact, np.abs(exact) + 8)

        inv_std, at = (1 / np.sqrt(variance)).astype(dtype), normal(np.random.default_rng(1), shape, dtype)
        outputs = Guarded(shape, dtype), Guarded(shape[-1:], dtype), Guarded(shape[-1:], dtype)
        dx, dgamma, dbeta = (out.array for out in outputs)
        backward = native().batch_norm_backward
        statistics = gamma, mean, inv_std
        backward(dy, x, *statistics, dx, dgamma, dbeta, True, at, activation, 0.0)
        results = [out.check() for out in outputs]
        plain = [np.empty_like(out) for out in results]
        backward(dy, x, *statistics, *plain, True)
        assert_same_bits(results[1], plain[1])
        assert_same_bits(results[2], plain[2])
        if activation in ("linear", "relu"):  # the derivative is exact
            assert_same(results[0], plain[0] * (1 if activation == "linear" else at > 0))
        else:
            expected = ref.gelu_backward(plain[0].astype(np.float64), at.astype(np.float64))
            close(results[0], expected, np.abs(expected) + np.abs(plain[0]))
        for training in (False, True):
            backward(dy, x, *statistics, *plain, training)
            alone, in_place = [np.full_like(out, np.nan) for out in plain], dy.copy()
            backward(dy, x, *statistics, alone[0], None, None, training)
            backward(dy, x, *statistics, None, alone[1], None, training)
            backward(dy, x, *statistics, None, None, alone[2], training)
            backward(in_place, x, *statistics, in_place, None, None, training)
            for actual, expected in zip([*alone, in_place], [*plain, plain[0]], strict=True):
                assert_same_bits(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0, 5, 4), (1, 1)])
def test_nothing(ops, shape, dtype):
    x = np.zeros(shape, dtype)
    moving_mean, moving_variance = np.full(shape[-1:], 3, dtype), np.full(shape[-1:], 5, dtype)
    y, mean, inv_std = ops.batch_norm(x, None, None, moving_mean, moving_variance, training=True)
    assert_same(y, x)
    assert_same(mean, np.zeros(shape[-1:]))
    close(inv_std, np.full(shape[-1:], 1e-3**-0.5))
    close(moving_mean, np.full(shape[-1:], 3 * 0.99 if x.size else 3))
    close(moving_variance, np.full(shape[-1:], 5 * 0.99 if x.size else 5))
    for gradients in (ops.batch_norm_backward(x, x, None, mean, inv_std), ops.layer_norm_backward(x, x)):
        for gradient, size in zip(gradients, (shape, shape[-1:], shape[-1:]), strict=True):
            assert_same(gradient, np.zeros(size))
    assert_same(ops.layer_norm(x), x)
    assert_same(ops.rms_norm(x), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(ops, layout):
    for shape in ((9,), (70, 33), (5, 6, 64), (301, 3)):
        check_training(ops, shape, np.float32, LAYOUTS[layout])
        check_rows(ops, shape, np.float32, LAYOUTS[layout])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(70, 5), (300, 64), (40, 33)], ids=str)
def test_nan_and_infinity_stay_in_their_columns(ops, shape, value, dtype):
    x, dy, *_ = problem(shape, dtype)
    for row in (0, shape[0] // 2, shape[0] - 1):
        spoiled, others = x.copy(), np.arange(shape[1]) != 3
        spoiled[row, 3] = value
        clean, dirty = (ops.batch_norm(a, None, None, None, None, training=True) for a in (x, spoiled))
        for actual, expected in zip(dirty, clean, strict=True):
            assert_same_bits(actual[..., others], expected[..., others])
        assert np.isnan(dirty[0][:, 3]).all()
        assert not np.isfinite(dirty[1][3])
        assert np.isnan(dirty[2][3])
        statistics = clean[1], clean[2]
        clean, dirty = (ops.batch_norm_backward(dy, a, None, *statistics) for a in (x, spoiled))
        for actual, expected in zip(dirty, clean, strict=True):
            assert_same_bits(actual[..., others], expected[..., others])
        assert not np.isfinite(dirty[1][3])
        frozen, _, _ = ops.batch_norm_backward(dy, spoiled, None, *statistics, training=False)
        assert np.isfinite(frozen).all()


def test_infinity_without_training(ops):
    x = np.array([[np.inf, 1], [-np.inf, np.nan]], np.float32)
    y = ops.batch_norm(x, None, None, np.zeros(2, np.float32), np.ones(2, np.float32), epsilon=0.0)
    assert_same(y, x)


# ---- layer and RMS norm --------------------------------------------------------------------------


def check_rows(ops, shape, dtype, lay=lambda a: a, offset=0.0, optional=True, epsilon=1e-3):
    x, dy, _, gamma, beta, *_ = problem(shape, dtype, offset=offset)
    if not optional:
        gamma = beta = None
    laid = [None if a is None else lay(a) for a in (x, gamma, beta)]
    wide_x, cols = wide(x), shape[-1]
    scale = np.ones(cols) if gamma is None else np.abs(gamma)
    for rms in (False, True):
        mean = 0 if rms else wide_x.mean(axis=-1, keepdims=True)
        root = np.sqrt(((wide_x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
        size = np.abs(wide_x - mean) / root + (not rms)
        if rms:
            y = ops.rms_norm(*laid[:2], epsilon=epsilon)
            exact = exactly(ref.rms_norm, x, gamma, epsilon=epsilon)
            actual = ops.rms_norm_backward(lay(dy), *laid[:2], epsilon=epsilon)
            gradients = exactly(ref.rms_norm_backward, dy, x, gamma, epsilon=epsilon)
        else:
            y = ops.layer_norm(*laid, epsilon=epsilon)
            exact = exactly(ref.layer_norm, x, gamma, beta, epsilon=epsilon)
            actual = ops.layer_norm_backward(lay(dy), *laid[:2], epsilon=epsilon)
            gradients = exactly(ref.layer_norm_backward, dy, x, gamma, epsilon=epsilon)
        assert y.dtype == dtype
        close(y, exact, size * scale + (0 if beta is None or rms else np.abs(beta)))
        g = np.abs(wide(dy)) * scale
        of_products = (g * size).mean(axis=-1, keepdims=True)
        total = 0 if rms else g.mean(axis=-1, keepdims=True)
        sums = (np.abs(dy) * size).sum(axis=axes_of(x)), np.abs(wide(dy)).sum(axis=axes_of(x))
        sizes = ((g + total + size * of_products) / root, *sums)
        for a, e, s in zip(actual, gradients, sizes, strict=False):
            assert a.dtype == dtype
            close(a, e, s)


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_norms_of_sizes(ops, dtype):
    for rows, cols in itertools.product((1, 3, 33), COLUMNS):
        check_rows(ops, (rows, cols), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1030, 10), (300, 768), (5, 4, 3, 100), (2, 12300), (3, 30011), (40, 1031)], ids=str
)
def test_row_norms_of_larger_sizes(ops, shape, dtype):
    check_rows(ops, shape, dtype)
    check_rows(ops, shape, dtype, optional=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_row_norms_with_a_large_mean(ops, dtype):
    for shape in ((3, 20), (5, 768), (2, 5000)):
        check_rows(ops, shape, dtype, offset=1e4)
        check_rows(ops, shape, dtype, offset=-3e5 if dtype == np.float32 else -100)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rms", [False, True])
def test_what_only_programs_want_of_row_norms(device, rms, dtype):
    """The statistics, and gradients from them; results in place of inputs; single gradients."""
    for shape in ((1, 1), (40, 5), (70, 33), (30, 768)):
        x, dy, _, gamma, beta, *_ = problem(shape, dtype)
        outputs = [Guarded(size, dtype) for size in (shape, shape[:1], shape[:1])]
        y, mean, inv_std = (out.array for out in outputs)
        native().layer_norm(x, gamma, None if rms else beta, y, rms, 1e-3, mean, inv_std)
        y, mean, inv_std = (out.check() for out in outputs)
        exact_mean = wide(x).mean(axis=-1) if not rms else np.zeros(shape[0])
        variance = ((wide(x) - exact_mean[:, None]) ** 2).mean(axis=-1)
        close(mean, exact_mean, np.abs(exact_mean) + 1)
        close(inv_std, 1 / np.sqrt(variance + 1e-3))
        in_place = x.copy()
        native().layer_norm(in_place, gamma, None if rms else beta, in_place, rms, 1e-3)
        assert_same_bits(in_place, y)

        outputs = [Guarded(size, dtype) for size in (shape, shape[-1:], shape[-1:])]
        backward, (dx, dgamma, dbeta) = native().layer_norm_backward, (out.array for out in outputs)
        backward(dy, x, gamma, dx, dgamma, dbeta, rms, 1e-3, mean, inv_std)
        results = [out.check() for out in outputs]
        normalised = (wide(x) - wide(mean)[:, None] * (not rms)) * wide(inv_std)[:, None]
        close(results[1], (dy * normalised).sum(axis=0), np.abs(dy * normalised).sum(axis=0))
        close(results[2], wide(dy).sum(axis=0), np.abs(wide(dy)).sum(axis=0))
        g = wide(dy) * wide(gamma)
        total = 0 if rms else g.mean(axis=1, keepdims=True)
        expected = g - total - normalised * (g * normalised).mean(axis=1, keepdims=True)
        close(results[0], expected * inv_std[:, None], 16 * inv_std[:, None])
        alone, in_place = [np.full_like(out, np.nan) for out in results], dy.copy()
        backward(dy, x, gamma, alone[0], None, None, rms, 1e-3, mean, inv_std)
        backward(dy, x, gamma, None, alone[1], None, rms, 1e-3, mean, inv_std)
        backward(dy, x, gamma, None, None, alone[2], rms, 1e-3, mean, inv_std)
        backward(in_place, x, gamma, in_place, None, None, rms, 1e-3, mean, inv_std)
        for actual, result in zip([*alone, in_place], [*results, results[0]], strict=True):
            assert_same_bits(actual, result)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_nan_and_infinity_stay_in_their_rows(ops, name, dtype):
    for cols in (5, 33, 800):
        x, dy, *_ = problem((6, cols), dtype)
        clean = getattr(ops, name)(x)
        dx = getattr(ops, f"{name}_backward")(dy, x)[0]
        for value in (np.nan, np.inf):
            spoiled = x.copy()
            spoiled[2, 3] = value
            others = np.arange(6) != 2
            y, dirty = getattr(ops, name)(spoiled), getattr(ops, f"{name}_backward")(dy, spoiled)
            assert_same_bits(y[others], clean[others])
            assert_same_bits(dirty[0][others], dx[others])
            assert np.isnan(y[2, 3])
            assert np.isnan(dirty[1][3])
            assert np.isnan(dirty[0][2]).any()


# ---- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, dtype):
    for shape in ((20000, 3), (5000, 64), (700, 300), (40, 4001), (3, 20011)):
        x, dy, residual, gamma, beta, mean, variance = problem(shape, dtype)
        results = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            moving = mean.copy(), variance.copy()
            y = ops.batch_norm(x, gamma, beta, *moving, training=True, residual=residual, activation="tanh")
            results.append((*y, *moving, *ops.batch_norm_backward(dy, x, gamma, *y[1:])))
            results[-1] += (ops.layer_norm(x, gamma, beta), *ops.layer_norm_backward(dy, x, gamma))
            results[-1] += (ops.rms_norm(x, gamma), *ops.rms_norm_backward(dy, x, gamma))
        for result in results[1:]:
            for actual, expected in zip(result, results[0], strict=True):
                assert_same_bits(actual, expected)


shapes = given(
    shape=st.one_of(
        st.tuples(st.integers(1, 400), st.integers(1, 100)),
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 30), st.integers(1, 40)),
    ),
    dtype=st.sampled_from(DTYPES),
    offset=st.sampled_from([0.0, 3.0, -1000.0]),
    optional=st.booleans(),
)


@shapes
def test_any_shape(ops, shape, dtype, offset, optional):
    check_training(ops, shape, dtype, offset=offset, optional=optional)
    check_rows(ops, shape, dtype, offset=offset, optional=optional)


@pytest.mark.fuzz
@LONG
@shapes
def test_any_shape_long(ops, shape, dtype, offset, optional):
    check_training(ops, shape, dtype, offset=offset, optional=optional)
    check_rows(ops, shape, dtype, offset=offset, optional=optional)


def test_bad_arguments(ops):
    x, p = np.ones((4, 3), np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="no axes"):
        ops.layer_norm(np.float32(1.0))
    with pytest.raises(ValueError, match=r"(?s)gamma has shape \(4,\).*\(3,\).*last axis of x"):
        ops.layer_norm(x, np.ones(4, np.float32))
    with pytest.raises(TypeError, match=r"(?s)beta has dtype float64.*x float32"):
        ops.batch_norm(x, p, np.ones(3), p, p)
    with pytest.raises(TypeError, match=r"(?s)int64.*float32"):
        ops.rms_norm(x.astype(np.int64))
    with pytest.raises(ValueError, match=r"epsilon is -1"):
        ops.rms_norm(x, epsilon=-1)
    with pytest.raises(ValueError, match=r"momentum is 2.*0 to 1"):
        ops.batch_norm(x, p, p, p, p, momentum=2)
    with pytest.raises(ValueError, match=r"moving_variance is None.*training=True"):
        ops.batch_norm(x, p, p, p, None)
    with pytest.raises(ValueError, match=r"moving_mean is read-only"):
        ops.batch_norm(x, p, p, LAYOUTS["read-only"](p), p.copy(), training=True)
    with pytest.raises(TypeError, match=r"moving_mean is a list"):
        ops.batch_norm(x, p, p, [0.0, 0.0, 0.0], None, training=True)
    with pytest.raises(ValueError, match=r"residual has shape \(3,\)"):
        ops.batch_norm(x, p, p, p, p, residual=p)
    with pytest.raises(ValueError, match=r"unknown activation 'rel'"):
        ops.batch_norm(x, p, p, p, p, activation="rel")
    with pytest.raises(ValueError, match=r"dy has shape \(3, 3\)"):
        ops.batch_norm_backward(x[:3], x, p, p, p)
    with pytest.raises(ValueError, match=r"relu needs the output of batch_norm: pass it as y"):
        ops.batch_norm_backward(x, x, p, p, p, activation="relu")
    with pytest.raises(ValueError, match=r"gelu needs the output before the activation: pass it as z"):
        ops.batch_norm_backward(x, x, p, p, p, x, activation="gelu")
