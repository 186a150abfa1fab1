import itertools

import numpy as np
import pytest
from helpers.arrays import LAYOUTS, integers, normal
from helpers.compare import assert_close, assert_same, assert_same_bits
from helpers.precision import double, rounded
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from tilefuse import reference as ref
from tilefuse._device import native
from tilefuse.ops._windows import windows
from tilefuse.reference.activations import FORWARD, NEEDS_INPUT, activate, activate_backward

DTYPES = [np.float32, np.float64]


@pytest.fixture(params=["float32", "bfloat16", "split", "tf32", "float16"])
def precision(request, device):
    """Each way to multiply float32 that the device has."""
    if device == "cpu" and request.param not in ("float32", "bfloat16"):
        pytest.skip(f"{request.param} is for CUDA devices")
    return request.param


def arrays(make, shape, kernel, f, dtype, seed=0, groups=1, **how):
    """x, w, b and dy of a convolution."""
    rng = np.random.default_rng(seed)
    out = windows(
        shape[1:3], kernel, how.get("strides", 1), how.get("padding", "valid"), how.get("dilation", 1)
    ).out
    x, w = make(rng, shape, dtype), make(rng, (*kernel, shape[3] // groups, f), dtype)
    return x, w, make(rng, (f,), dtype), make(rng, (shape[0], *out, f), dtype)


def check_integers(
    ops,
    shape,
    kernel,
    f,
    dtype=np.float32,
    layout="contiguous",
    activation="relu",
    precision=None,
    **how,
):
    lay = LAYOUTS[layout]
    x, w, b, dy = arrays(integers, shape, kernel, f, dtype, **how)
    y = ops.conv2d(lay(x), lay(w), lay(b), activation=activation, precision=precision, **how)
    assert y.dtype == dtype
    assert_same(y, ref.conv2d(x, w, b, activation=activation, **how))
    gradients = ops.conv2d_backward(
        lay(dy), lay(x), lay(w), lay(y), activation=activation, precision=precision, **how
    )
    for actual, expected in zip(
        gradients, ref.conv2d_backward(dy, x, w, y, activation=activation, **how), strict=True
    ):
        assert actual.dtype == dtype
        assert_same(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("padding", ["valid", "same", 2, ((0, 1), (3, 2))])
def test_integers_are_exact(ops, kernel, padding, dtype):
    for c, f in itertools.product((1, 3, 16, 17), (1, 8, 10, 33)):
        check_integers(ops, (2, 9, 7, c), kernel, f, dtype, padding=padding)


@pytest.mark.parametrize("strides", [1, 2, 3, (1, 3)])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 0), (2, 4))])
def test_geometry(ops, strides, dilation, groups, padding):
    for kernel, f in itertools.product(((1, 1), (3, 3), (2, 3)), (6, 12)):
        check_integers(
            ops, (2, 11, 10, 6), kernel, f, strides=strides, dilation=dilation, groups=groups, padding=padding
        )


@pytest.mark.parametrize("c", [1, 2, 7, 8, 9, 16, 20, 33, 64])
@pytest.mark.parametrize(
    "how", [{}, {"strides": 2}, {"padding": "same"}, {"dilation": 2, "padding": "same"}], ids=str
)
def test_depthwise(ops, c, how):
    for kernel in ((3, 3), (5, 2), (1, 1)):
        check_integers(ops, (3, 8, 9, c), kernel, c, groups=c, **how)
        check_integers(ops, (3, 8, 9, c), kernel, 3 * c, groups=c, **how)  # three filters a channel


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strides", [1, 2, (1, 3)])
@pytest.mark.parametrize("groups", [2, 3, 8, 20])
def test_small_groups(ops, groups, strides, dtype):
    """Of which a vector takes several, or a gradient several as one."""
    for inputs, outputs in ((1, 2), (2, 1), (4, 4), (3, 5), (8, 8), (7, 2), (16, 1), (2, 12)):
        for kernel, padding in (((3, 3), "same"), ((1, 1), "valid"), ((2, 4), ((0, 2), (3, 1)))):
            shape = (3, 7, 9, groups * inputs)
            how = {"groups": groups, "strides": strides, "padding": padding}
            check_integers(ops, shape, kernel, groups * outputs, dtype, **how)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"), [(4, 4, 4), (16, 4, 4), (4, 7, 2), (2, 17, 1), (32, 2, 1)]
)
def test_groups_keep_infinity_and_nan_to_themselves(ops, groups, inputs, outputs):
    c, f, how = groups * inputs, groups * outputs, {"groups": groups, "strides": 2}
    x, w, _, dy = arrays(integers, (2, 8, 9, c), (2, 1), f, np.float32, **how)
    expected = (ops.conv2d(x, w, **how), *ops.conv2d_backward(dy, x, w, **how))
    x[0, 2, 4, inputs], dy[1, 3, 2, outputs] = np.nan, np.inf  # of group 1
    actual = (ops.conv2d(x, w, **how), *ops.conv2d_backward(dy, x, w, **how))
    for a, e in zip(actual, expected, strict=True):
        of_group = a.shape[-1] // groups
        others = [channel for channel in range(a.shape[-1]) if channel // of_group != 1]
        assert_same(a[..., others], e[..., others])
        assert not np.isfinite(a).all()


@pytest.mark.parametrize("c", [512, 1024])
def test_depthwise_of_pixels_that_share_a_set_of_the_cache(ops, c):
    for how in ({}, {"padding": "same"}, {"strides": 2, "padding": 1}, {"dilation": 2, "padding": 3}):
        check_integers(ops, (2, 9, 8, c), (3, 3), c, groups=c, **how)


@pytest.mark.parametrize("kernel", [(7, 1), (2, 7), (4, 5), (6, 6), (9, 8)])
@pytest.mark.parametrize("strides", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_depthwise_of_many_taps(ops, kernel, strides, dilation):
    for padding in ("valid", 5):
        shape = (2, 9 * dilation, 20 + 7 * dilation, 19)
        check_integers(ops, shape, kernel, 19, groups=19, strides=strides, dilation=dilation, padding=padding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel", "f", "how"),
    [
        ((2, 28, 28, 1), (3, 3), 32, {}),
        ((3, 40, 38, 3), (3, 3), 32, {}),
        ((2, 13, 13, 32), (3, 3), 64, {}),
        ((5, 5, 5, 64), (3, 3), 64, {}),
        ((1, 30, 30, 3), (7, 7), 64, {"strides": 2, "padding": 3}),
        ((1, 9, 9, 130), (3, 3), 70, {"padding": "same"}),
        ((2, 7, 7, 400), (1, 1), 65, {}),
        ((3, 7, 8, 70), (1, 1), 64, {}),
        ((3, 7, 8, 6), (1, 1), 9, {}),
        # many pixels for few weights
        ((7, 20, 21, 48), (1, 1), 40, {}),
        ((5, 31, 23, 9), (1, 1), 7, {}),
        ((3, 31, 23, 72), (1, 1), 80, {}),
        ((1, 14, 14, 520), (3, 3), 16, {"strides": 2, "padding": "same"}),
        ((40, 3, 3, 5), (3, 3), 7, {"padding": "same"}),
        ((1, 1, 300, 4), (1, 9), 4, {}),
        # many filters, whose gradient takes strips of x
        ((1, 19, 16, 20), (3, 3), 230, {"strides": 2, "padding": "same"}),
        ((3, 12, 11, 18), (3, 2), 420, {"dilation": 2, "padding": 3, "groups": 2}),
        ((30, 9, 9, 24), (1, 1), 200, {"strides": 2}),
        # few filters, whose gradient is turned round
        ((2, 22, 21, 70), (4, 4), 2, {"dilation": 2}),
        ((3, 12, 11, 92), (4, 4), 28, {"padding": 2, "groups": 4}),
        ((2, 10, 8, 30), (6, 6), 23, {"padding": 3}),
        ((1, 9, 20, 101), (2, 3), 1, {"strides": 3}),
        # rows of taps that lie together
        *(((8, 30, 1, c), (4, 1), 12, {}) for c in (4, 8, 16)),
        *(((3, 9, c, 2), (4, c), 12, {}) for c in (2, 4, 8)),
        ((8, 4, 4, 2), (4, 4), 12, {}),
    ],
    ids=str,
)
def test_integers_are_exact_in_layers_of_networks(ops, shape, kernel, f, how, dtype):
    check_integers(ops, shape, kernel, f, dtype, **how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [(1, 2), (2, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("strides", [1, 2, (3, 1)])
@pytest.mark.parametrize(("c", "f", "groups"), [(1, 2, 1), (2, 1, 1), (2, 2, 2), (2, 4, 2), (1, 19, 1)])
def test_tiny(ops, kernel, strides, c, f, groups, dtype):
    for n, dilation, padding in itertools.product((1, 2), (1, 2), ("valid", "same", ((2, 0), (1, 3)))):
        how = {"strides": strides, "dilation": dilation, "padding": padding, "groups": groups}
        check_integers(ops, (n, 3, 4, c), kernel, f, dtype, **how)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(ops, layout):
    check_integers(ops, (2, 6, 7, 5), (3, 2), 9, layout=layout)


@pytest.mark.parametrize(
    ("shape", "kernel", "f"),
    [
        ((0, 5, 5, 3), (3, 3), 4),
        ((0, 4, 4, 8), (1, 1), 16),
        ((2, 2, 5, 3), (3, 3), 4),
        ((2, 5, 5, 0), (3, 3), 4),
        ((2, 5, 5, 3), (3, 3), 0),
    ],
)
def test_nothing(ops, shape, kernel, f):
    x, w, b, dy = arrays(integers, shape, kernel, f, np.float32)
    assert_same(ops.conv2d(x, w, b), ref.conv2d(x, w, b))
    for actual, expected in zip(ops.conv2d_backward(dy, x, w), ref.conv2d_backward(dy, x, w), strict=True):
        assert_same(actual, expected)


def check_random(ops, shape, kernel, f, dtype, seed, groups=1, **how):
    x, w, b, dy = arrays(normal, shape, kernel, f, dtype, seed, groups, **how)
    how["groups"] = groups
    taps = kernel[0] * kernel[1]
    y, exact = ops.conv2d(x, w, b, **how), double(ref.conv2d, x, w, b, **how)
    size = double(ref.conv2d, np.abs(x), np.abs(w), np.abs(b), **how)
    assert_close(y, exact, magnitude=size, terms=taps * shape[3] // groups + 1)
    actual, exact = ops.conv2d_backward(dy, x, w, **how), double(ref.conv2d_backward, dy, x, w, **how)
    size = double(ref.conv2d_backward, np.abs(dy), np.abs(x), np.abs(w), **how)
    terms = (taps * f // groups, dy[..., 0].size, dy[..., 0].size)
    for a, e, m, t in zip(actual, exact, size, terms, strict=True):
        assert_close(a, e, magnitude=m, terms=max(1, t))


@pytest.mark.parametrize("dtype", DTYPES)
def test_random(ops, dtype):
    check_random(ops, (4, 20, 19, 24), (3, 3), 40, dtype, 1)
    check_random(ops, (2, 13, 12, 12), (3, 2), 24, dtype, 2, groups=3, padding="same", strides=2)


# Many channels and 3 x 3: the CPU filters by Winograd's transforms.
@pytest.mark.parametrize("padding", ["valid", "same", ((2, 0), (1, 3))])
@pytest.mark.parametrize(("shape", "f"), [((2, 14, 13, 40), 36), ((3, 9, 8, 64), 70), ((1, 31, 6, 24), 128)])
def test_transformed_filters(ops, shape, f, padding):
    check_integers(ops, shape, (3, 3), f, padding=padding)
    check_random(ops, shape, (3, 3), f, np.float32, 3, padding=padding)


def test_ieee_is_multiply_adds_alone(ops, device):
    x, w, _, dy = arrays(normal, (2, 16, 16, 64), (3, 3), 64, np.float32)
    how = ("float32", "ieee")
    ours, plain = ([ops.conv2d(x, w, precision=p), *ops.conv2d_backward(dy, x, w, precision=p)] for p in how)
    terms = 2 * 14 * 14
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.sqrt(terms) * np.abs(b).max())
    if device == "cpu":
        assert [bool((a == b).all()) for a, b in zip(ours, plain, strict=True)] == [False, False, False, True]


CASES = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
        "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "f": st.integers(1, 40),
        "strides": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.one_of(
            st.sampled_from(["valid", "same"]),
            st.tuples(*[st.tuples(st.integers(0, 6), st.integers(0, 6)) for _ in range(2)]),
        ),
        "groups": st.sampled_from([1, 1, 2, 3, "depthwise"]),
        "dtype": st.sampled_from(DTYPES),
    }
)


def check_case(ops, case):
    n, h, w, c = case.pop("shape")
    if case["groups"] == "depthwise":
        case["groups"], case["f"] = c, c * (1 + case["f"] % 2)
    else:
        c, case["f"] = c * case["groups"], case["f"] * case["groups"]
    check_integers(ops, (n, h, w, c), **case)


@given(CASES)
def test_any_geometry(ops, case):
    check_case(ops, dict(case))


@pytest.mark.fuzz
@LONG
@given(CASES)
def test_any_geometry_at_length(ops, case):
    check_case(ops, dict(case))


@pytest.mark.parametrize("activation", FORWARD)
def test_activations(ops, activation):
    x, w, b, dy = arrays(normal, (2, 6, 5, 3), (3, 3), 10, np.float64)
    z = ref.conv2d(x, w, b)
    y = ops.conv2d(x, w, b, activation=activation)
    np.testing.assert_allclose(y, activate(z, activation), rtol=1e-12, atol=1e-12)
    given_z = {"z": z} if activation in NEEDS_INPUT else {}
    dz = activate_backward(dy, y, activation, x=z)
    actual = ops.conv2d_backward(dy, x, w, y, activation=activation, **given_z)
    for a, e in zip(actual, ref.conv2d_backward(dz, x, w), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-11, atol=1e-11)


def pooled(x, window):
    """Max-pooling with windows side by side, and where each maximum is (the first)."""
    n, h, w, c = x.shape
    height, width = window
    rows, cols = h // height, w // width
    cut = x[:, : rows * height, : cols * width].reshape(n, rows, height, cols, width, c)
    cut = cut.transpose(0, 1, 3, 5, 2, 4).reshape(n, rows, cols, c, height * width)
    return cut.max(axis=-1), cut.argmax(axis=-1)


def unpooled(dy, argmax, shape, window):
    """The gradient before max-pooling."""
    dz = np.zeros(shape, dy.dtype)
    for n, i, j, c in np.ndindex(dy.shape):
        p, q = divmod(int(argmax[n, i, j, c]), window[1])
        dz[n, i * window[0] + p, j * window[1] + q, c] = dy[n, i, j, c]
    return dz


WINDOWS = [(2, 2), (3, 2), (1, 4), (5, 5), (11, 2)]
POOLED = [
    ((3, 12, 11, 3), 10),
    ((1, 10, 16, 17), 32),
    ((2, 26, 26, 1), 33),
    ((2, 12, 13, 40), 5),
    ((1, 12, 13, 6), 230),
]


def check_max_pooling(window, dtype, precision="float32", layers=POOLED, **how):
    for shape, f in layers:
        x, w, b, dz = arrays(integers, shape, (3, 3), f, dtype, **how)
        where = windows(shape[1:3], (3, 3), how.get("strides", 1), how.get("padding", "valid"))
        geometry = (*where.out, *where.strides, *where.dilation, *where.before, how.get("groups", 1))
        z = ref.conv2d(x, w, b, **how)
        expected, _ = pooled(z, window)
        y = np.full(expected.shape, np.nan, dtype)
        argmax = np.full(expected.shape, 255, np.uint8)
        native().conv2d(x, w, y, b, "relu", 0.0, None, geometry, precision, window, argmax)
        assert_same(y, np.maximum(expected, 0))
        assert (argmax < window[0] * window[1]).all()
        at_argmax = unpooled(np.ones_like(y), argmax, z.shape, window) * z
        assert_same(pooled(np.where(at_argmax != 0, z, -np.inf), window)[0].clip(0), np.maximum(expected, 0))

        dy = integers(np.random.default_rng(1), y.shape, dtype)
        dz = unpooled(dy, argmax, z.shape, window)
        dx, dw, db = np.full_like(x, np.nan), np.full_like(w, np.nan), np.full_like(b, np.nan)
        native().conv2d_backward_data(dy, w, dx, geometry, precision, window, argmax)
        native().conv2d_backward_weights(x, dy, dw, db, geometry, precision, window, argmax)
        for actual, exact in zip((dx, dw, db), ref.conv2d_backward(dz, x, w, **how), strict=True):
            assert_same(actual, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("how", [{}, {"padding": "same"}, {"strides": 2, "padding": 2}], ids=str)
def test_max_pooling_in_the_same_kernel(device, window, how, dtype):
    check_max_pooling(window, dtype, **how)


@pytest.mark.parametrize("window", WINDOWS)
def test_max_pooling_in_each_precision(precision, window):
    check_max_pooling(window, np.float32, precision, padding="same")


@pytest.mark.parametrize("c", [5, 8])
@pytest.mark.parametrize("window", WINDOWS)
def test_max_pooling_after_depthwise(device, window, c):
    for strides in (1, 2):
        how = {"padding": 2, "strides": strides, "groups": c}
        check_max_pooling(window, np.float32, layers=[((2, 23, 16, c), c)], **how)


def test_pooling_lets_nan_through(device):
    x, w = np.zeros((1, 4, 4, 1), np.float32), np.ones((1, 1, 1, 9), np.float32)
    for place in np.ndindex(2, 2):
        x[...] = 1
        x[0, place[0], place[1]] = np.nan
        y, argmax = np.zeros((1, 2, 2, 9), np.float32), np.zeros((1, 2, 2, 9), np.uint8)
        native().conv2d(
            x, w, y, None, "relu", 0.0, None, (4, 4, 1, 1, 1, 1, 0, 0, 1), "float32", (2, 2), argmax
        )
        assert np.isnan(y[0, 0, 0]).all()
        assert (argmax[0, 0, 0] == 2 * place[0] + place[1]).all()
        assert_same(y[0, 1], np.ones((2, 9), np.float32))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"strides": 2, "padding": "same"},
        {"groups": 4},
        {"groups": 32},
        {"groups": 32, "padding": "same", "dilation": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("c", "f"), [(32, 32), (64, 64), (64, 32), (32, 320)])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)], ids=["3 x 3", "1 x 1"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_threads(ops, set_num_threads, how, c, f, kernel, precision):
    x, w, b, dy = arrays(normal, (9, 17, 15, c), kernel, f, np.float32, **how)
    how = how | {"precision": precision}
    results = []
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        results.append((ops.conv2d(x, w, b, **how), *ops.conv2d_backward(dy, x, w, **how)))
    for other in results[1:]:
        for a, e in zip(other, results[0], strict=True):
            assert_same_bits(a, e)


def test_gradients_of_infinity_and_nan_are_those_of_multiply_adds(ops):
    x, w, _, dy = arrays(integers, (2, 16, 15, 64), (3, 3), 64, np.float32)
    dy[dy == 0] = 1
    for place, value in (((0, 5, 5, 3), np.inf), ((1, 0, 0, 7), np.nan), ((0, 15, 14, 0), -np.inf)):
        spoiled = x.copy()
        spoiled[place] = value
        for actual, exact in zip(
            ops.conv2d_backward(dy, spoiled, w),
            ops.conv2d_backward(dy, spoiled, w, precision="ieee"),
            strict=True,
        ):
            assert_same(actual, exact)
    bright = np.full((2, 16, 15, 64), 3e38, np.float32)
    one = np.zeros_like(dy)
    one[1, 6, 6] = 1
    assert np.isfinite(ops.conv2d_backward(one, bright, w)[1]).all()


def test_what_no_window_reads_counts_for_nothing(ops):
    x, w, b, _ = arrays(integers, (2, 16, 17, 64), (3, 3), 64, np.float32)
    how = {"padding": ((0, -1), (0, -2))}
    small = x[:, :15, :15].copy()
    x[:, 15:], x[:, :, 15:] = np.nan, np.nan
    with pytest.raises(ValueError, match="padding"):  # crops are not for the ops' callers
        ops.conv2d(x, w, b, **how)
    dy = integers(np.random.default_rng(1), (2, 13, 13, 64), np.float32)
    geometry = (13, 13, 1, 1, 1, 1, 0, 0, 1)
    y, dw = np.empty_like(dy), np.empty_like(w)
    native().conv2d(x, w, y, b, "linear", 0.0, None, geometry, "float32")
    native().conv2d_backward_weights(x, dy, dw, None, geometry, "float32")
    assert_same(y, ref.conv2d(small, w, b))
    assert_same(dw, ref.conv2d_backward(dy, small, w)[1])


@pytest.mark.parametrize(("c", "f"), [(3, 8), (20, 50), (64, 64)])
def test_infinity_and_nan_stay_in_their_windows(ops, precision, c, f):
    x, w, b, _ = arrays(integers, (1, 9, 9, c), (3, 3), f, np.float32)
    w = np.where(w == 0, 1, w).astype(np.float32)
    clean = ops.conv2d(x, w, b, precision=precision)
    for value in (np.inf, np.nan):
        spoiled = x.copy()
        spoiled[0, 4, 4, 1] = value
        y = ops.conv2d(spoiled, w, b, precision=precision)
        outside = np.ones((7, 7), bool)
        outside[2:5, 2:5] = False
        assert_same(y[0, outside], clean[0, outside])
        assert not np.isfinite(y[0, ~outside]).any()


@pytest.mark.parametrize(("c", "f"), [(3, 8), (20, 50), (33, 70)])
def test_infinite_and_nan_weights_stay_in_their_filters(ops, precision, c, f):
    x, w, b, dy = arrays(integers, (2, 9, 9, c), (3, 3), f, np.float32)
    x, dy = np.where(x == 0, 1, x).astype(np.float32), np.where(dy == 0, 1, dy).astype(np.float32)
    clean, cleaned = (
        ops.conv2d(x, w, b, precision=precision),
        ops.conv2d_backward(dy, x, w, precision=precision),
    )
    for place, value in (((0, 1, c - 1, 3), np.inf), ((2, 2, c - 1, f - 1), np.nan), ((1, 0, 0, 0), -np.inf)):
        spoiled = w.copy()
        spoiled[place] = value
        y, gradients = (
            ops.conv2d(x, spoiled, b, precision=precision),
            ops.conv2d_backward(dy, x, spoiled, precision=precision),
        )
        assert_same(np.delete(y, place[3], -1), np.delete(clean, place[3], -1))
        assert not np.isfinite(y[..., place[3]]).any()
        assert_same(np.delete(gradients[0], place[2], -1), np.delete(cleaned[0], place[2], -1))
        assert_same(gradients[1], cleaned[1])


@pytest.mark.parametrize(
    ("shape", "kernel", "f", "how"),
    [
        ((2, 9, 8, 12), (3, 3), 20, {}),
        ((1, 30, 30, 3), (7, 7), 64, {"strides": 2, "padding": 3}),
        ((2, 11, 10, 33), (3, 2), 70, {"padding": "same", "dilation": 2}),
        ((2, 11, 10, 24), (3, 3), 36, {"padding": "same", "strides": (3, 2), "groups": 3}),
        ((3, 8, 9, 16), (3, 3), 16, {"groups": 16}),
        ((1, 2, 3, 64), (2, 2), 64, {}),
        ((3, 9, 10, 13), (3, 3), 230, {"padding": "same", "strides": 2}),
        ((3, 9, 10, 70), (3, 3), 3, {"padding": "same"}),
        # tile registers: whole ones, and parts of 16 pixels, pairs and filters
        ((2, 10, 10, 32), (3, 3), 64, {}),
        ((3, 7, 6, 18), (3, 1), 33, {"padding": "same"}),
        ((5, 6, 5, 50), (1, 2), 49, {"strides": (1, 2)}),
        ((1, 5, 6, 66), (2, 3), 17, {"dilation": 2}),
        # on GPUs in the largest tiles: forward, dx, and dw
        ((4, 56, 60, 8), (1, 1), 128, {}),
        ((4, 56, 60, 128), (1, 1), 8, {}),
        ((1, 5, 9, 288), (2, 2), 1200, {}),
    ],
    ids=str,
)
def test_integers_are_exact_in_each_precision(ops, precision, shape, kernel, f, how):
    check_integers(ops, shape, kernel, f, precision=precision, **how)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_each_precision(ops, precision, layout):
    check_integers(ops, (2, 6, 7, 12), (3, 2), 20, layout=layout, precision=precision)


@given(CASES)
def test_any_geometry_in_each_precision(ops, precision, case):
    check_case(ops, case | {"dtype": np.float32, "precision": precision})


def test_operands_are_rounded(ops, precision):
    x, w, _, dy = arrays(normal, (2, 9, 8, 12), (3, 3), 20, np.float32)

    def kept(a):
        return a if precision in ("float32", "split") else rounded(a, precision)

    y = ops.conv2d(x, w, precision=precision)
    exact = double(ref.conv2d, kept(x), kept(w))
    assert_close(y, exact, magnitude=double(ref.conv2d, np.abs(x), np.abs(w)), terms=108)
    actual = ops.conv2d_backward(dy, x, w, precision=precision)
    exact = double(ref.conv2d_backward, kept(dy), kept(x), kept(w))
    size = double(ref.conv2d_backward, np.abs(dy), np.abs(x), np.abs(w))
    for a, e, m in list(zip(actual, exact, size, strict=True))[:2]:  # db multiplies nothing
        assert_close(a, e, magnitude=m, terms=200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((5, 5, 3), np.float32)}, r"x has shape \(5, 5, 3\); expected four axes"),
        ({"w": np.zeros((3, 3, 2, 4), np.float32)}, "filters of 2 channels; expected 3"),
        ({"w": np.zeros((3, 3, 3), np.float32)}, "w has shape"),
        ({"b": np.zeros(5, np.float32)}, r"b has shape \(5,\); expected \(4,\)"),
        ({"strides": 0}, "strides is 0; expected a positive integer"),
        ({"strides": (1, 2, 3)}, "strides is"),
        ({"dilation": (1, -1)}, "dilation is"),
        ({"padding": "full"}, "padding is 'full'; expected 'valid', 'same'"),
        ({"padding": -1}, "padding is -1"),
        ({"padding": ((1, 2), 3)}, "padding is"),
        ({"groups": 2}, "groups is 2; expected a divisor"),
        ({"activation": "softmax"}, "unknown activation 'softmax'"),
        ({"precision": "half"}, "precision 'half' is unknown"),
    ],
    ids=str,
)
def test_errors(ops, change, message):
    arguments = {
        "x": np.zeros((2, 5, 5, 3), np.float32),
        "w": np.zeros((3, 3, 3, 4), np.float32),
        "b": np.zeros(4, np.float32),
    } | change
    with pytest.raises(ValueError, match=message):
        ops.conv2d(arguments.pop("x"), arguments.pop("w"), arguments.pop("b"), **arguments)


@pytest.mark.parametrize("strides", [2**40, (7, 2**20), (2**33, 1)])
def test_strides_that_lead_nowhere(ops, device, strides):
    """They cost nothing: there is one window, at most, that way."""
    if device != "cpu" and strides != (7, 2**20):
        pytest.skip("CUDA devices refuse strides of 2^29 and more")
    check_integers(ops, (2, 4, 5, 3), (2, 3), 4, np.float32, strides=strides)
    check_integers(ops, (0, 4, 5, 3), (2, 3), 4, np.float32, strides=strides)
    check_integers(ops, (2, 4, 5, 3), (1, 1), 4, np.float32, strides=strides)


def test_errors_of_the_gradients(ops):
    x, w, _, dy = arrays(normal, (2, 5, 5, 3), (3, 3), 4, np.float32)
    with pytest.raises(ValueError, match="dy has shape"):
        ops.conv2d_backward(dy[:, 1:], x, w)
    with pytest.raises(ValueError, match="pass it as y"):
        ops.conv2d_backward(dy, x, w, activation="relu")
    with pytest.raises(ValueError, match="pass it as z"):
        ops.conv2d_backward(dy, x, w, dy, activation="gelu")
    with pytest.raises(TypeError, match="dtype"):
        ops.conv2d_backward(dy.astype(np.float64), x, w)
