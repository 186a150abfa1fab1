import numpy as np
import pytest
from helpers.arrays import LAYOUTS, normal
from helpers.compare import assert_close, assert_same_bits
from helpers.precision import double, elementwise_magnitude
from helpers.properties import LONG
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]
SIZES = (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 1031, 20011)

# name, further arguments; its backward takes "y" or "x"
OPS = [
    ("relu", (), "y"),
    ("leaky_relu", (), "y"),
    ("leaky_relu", (0.01,), "y"),
    ("elu", (), "y"),
    ("elu", (1.5,), "y"),
    ("selu", (), "y"),
    ("sigmoid", (), "y"),
    ("tanh", (), "y"),
    ("softplus", (), "y"),
    ("silu", (), "x"),
    ("gelu", (), "x"),
    ("gelu", (True,), "x"),
]
IDS = ["-".join(map(str, (name, *options))) for name, options, _ in OPS]
all_ops = pytest.mark.parametrize(("name", "options", "at"), OPS, ids=IDS)


def many_values(dtype):
    """Every size of number, zeros, infinities and NaN."""
    info = np.finfo(dtype)
    powers = np.geomspace(float(info.tiny), float(info.max) / 4, 3001)
    near = np.linspace(0, 20, 5001)
    edges = [0.0, 1.0, 87.0, 88.5, 89.0, 103.5, 104.0, 709.0, 710.0, 745.5, 746.0]
    positive = np.concatenate([powers, near, edges, [float(info.max), np.inf]])
    return np.concatenate([positive, -positive, [np.nan]]).astype(dtype)


def limited(x, limit):
    """The absolute values of `x`, between 1 and the limit."""
    return np.clip(np.nan_to_num(np.abs(x.astype(np.float64))), 1, limit)


def check_forward(ops, name, options, x):
    y = getattr(ops, name)(x, *options)
    function = getattr(ref, name)
    assert y.dtype == x.dtype
    size = elementwise_magnitude(function, x, *options)
    flushed = 4 + 2 * limited(x, 1e3)  # silu and gelu multiply what was flushed by x
    assert_close(y, double(function, x, *options), magnitude=size, flushed=flushed)


def check_backward(ops, name, options, dy, at):
    dx = getattr(ops, f"{name}_backward")(dy, at, *options)
    function = getattr(ref, f"{name}_backward")
    assert dx.dtype == dy.dtype
    size = elementwise_magnitude(function, dy, at, *options)
    flushed = 4 + 2 * limited(dy, 1e3) * limited(at, 30) ** 3  # gelu_tanh: by x ** 3
    assert_close(dx, double(function, dy, at, *options), magnitude=size, flushed=flushed)


def output_of(name, options, x):
    with np.errstate(all="ignore"):
        return getattr(ref, name)(x, *options)


@all_ops
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_over_all_numbers(ops, name, options, at, dtype):
    check_forward(ops, name, options, many_values(dtype))


@all_ops
@pytest.mark.parametrize("dtype", DTYPES)
def test_accuracy_of_backward(ops, name, options, at, dtype):
    x = many_values(dtype)
    x = x[np.isfinite(x)]
    at_values = x if at == "x" else output_of(name, options, x)
    dy = normal(np.random.default_rng(0), x.shape, dtype)
    finite = np.isfinite(at_values)
    check_backward(ops, name, options, dy[finite], at_values[finite])


@all_ops
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(ops, name, options, at, dtype):
    rng = np.random.default_rng(1)
    for size in SIZES:
        x, dy = normal(rng, (2, size), dtype, 2.0)
        check_forward(ops, name, options, x)
        check_backward(ops, name, options, dy, x if at == "x" else output_of(name, options, x))


@all_ops
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_and_layouts(ops, name, options, at, layout):
    rng = np.random.default_rng(2)
    for shape in [(), (1,), (7,), (5, 9), (3, 4, 17), (0, 3)]:
        x, dy = normal(rng, shape, np.float32), normal(rng, shape, np.float32)
        check_forward(ops, name, options, LAYOUTS[layout](x))
        value = x if at == "x" else np.asarray(output_of(name, options, x))
        check_backward(ops, name, options, LAYOUTS[layout](dy), LAYOUTS[layout](value))


@all_ops
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_the_gradient(ops, name, options, at, dtype):
    dy = np.array([np.nan, np.inf, -np.inf, 1.0] * 5, dtype)
    check_backward(ops, name, options, dy, np.full(20, 0.5, dtype))


@all_ops
def test_inputs_stay_as_they_are(ops, name, options, at):
    x = normal(np.random.default_rng(3), (65,), np.float32)
    dy, before = x[::-1].copy(), x.copy()
    getattr(ops, name)(x, *options)
    getattr(ops, f"{name}_backward")(dy, x, *options)
    assert_same_bits(x, before)
    assert_same_bits(dy, before[::-1])


@all_ops
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_wherever_an_element_stands(ops, name, options, at, dtype):
    """Vector body, masked tail and any number of threads compute the same function."""
    x = normal(np.random.default_rng(4), (67,), dtype, 3.0)
    function = getattr(ops, name)
    whole = function(x, *options)
    for i in (0, 1, 13, 66):
        assert_same_bits(function(x[i : i + 1], *options), whole[i : i + 1])
    assert_same_bits(function(x[5:], *options), whole[5:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, dtype):
    x = normal(np.random.default_rng(5), (300_007,), dtype, 3.0)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        y = ops.gelu(x)
        results.append((y, ops.gelu_backward(y, x)))
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            assert_same_bits(actual, expected)


arrays = given(
    op=st.sampled_from(OPS),
    x=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40),
            elements=st.floats(-30, 30, width=32),
        )
    ),
)


@arrays
def test_any_array(ops, op, x):
    check_forward(ops, op[0], op[1], x)


@pytest.mark.fuzz
@LONG
@arrays
def test_any_array_long(ops, op, x):
    check_forward(ops, op[0], op[1], x)


@all_ops
def test_bad_arguments(ops, name, options, at):
    forward, backward = getattr(ops, name), getattr(ops, f"{name}_backward")
    with pytest.raises(TypeError, match=r"(?s)int64.*float32"):
        forward(np.ones(3, np.int64))
    with pytest.raises(TypeError, match=r"(?s)float16.*float32"):
        forward(np.ones(3, np.float16))
    with pytest.raises(ValueError, match=r"(?s)\(2,\).*\(3,\)|\(3,\).*\(2,\)"):
        backward(np.ones(2, np.float32), np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"(?s)float32.*float64|float64.*float32"):
        backward(np.ones(2, np.float32), np.ones(2, np.float64))
