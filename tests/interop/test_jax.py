"""tilefuse.jax against jax.numpy: values and gradients of every function, under jit, grad and vmap."""

from __future__ import annotations

import functools
import operator
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tilefuse import ops

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import tilefuse.jax as tf  # noqa: E402
from jax.test_util import check_grads  # noqa: E402
from tilefuse.interop.jax._launch import Shape, launch  # noqa: E402

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    function: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[Any, ...]  # of the arguments that have a gradient; None: an argument that is None
    constants: tuple[Any, ...] = ()  # the other arguments
    positive: bool = False  # arguments in (0, 1)


def activated(name: str | None) -> Callable[[Any], Any]:
    return ACTIVATIONS[name] if name else lambda x: x


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def dense(activation: str | None) -> Callable[..., Any]:
    return lambda x, w, b=None: activated(activation)(x @ w + (0 if b is None else b))


def conv(
    activation: str | None = None,
    strides: int = 1,
    padding: Any = "VALID",
    dilation: int = 1,
    groups: int = 1,
):
    def reference(x: Any, w: Any, b: Any = None) -> Any:
        y = jax.lax.conv_general_dilated(
            x,
            w,
            (strides, strides),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return activated(activation)(y + (0 if b is None else b))

    return reference


def pool(
    kind: str, size: int, stride: int, padding: str, count_padding: bool = False
) -> Callable[[Any], Any]:
    window, steps = (1, size, size, 1), (1, stride, stride, 1)

    def reference(x: Any) -> Any:
        if kind == "max":
            return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, steps, padding)
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, steps, padding)
        if count_padding:
            return total / size**2
        return total / jax.lax.reduce_window(jnp.ones_like(x), 0.0, jax.lax.add, window, steps, padding)

    return reference


def layer_norm(x: Any, gamma: Any = None, beta: Any = None) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + 1e-3)
    return y * (1 if gamma is None else gamma) + (0 if beta is None else beta)


def rms_norm(x: Any, gamma: Any = None) -> Any:
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 if gamma is None else gamma)


def batch_norm(training: bool, activation: str | None = None) -> Callable[..., Any]:
    def reference(x: Any, gamma: Any, beta: Any, residual: Any, mean: Any, variance: Any) -> Any:
        if training:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
        y = (x - mean) / jnp.sqrt(variance + 1e-3)
        y = y * (1 if gamma is None else gamma) + (0 if beta is None else beta)
        return activated(activation)(y + (0 if residual is None else residual))

    return reference


def fused_batch_norm(training: bool, activation: str | None = None) -> Callable[..., Any]:
    def function(x: Any, gamma: Any, beta: Any, residual: Any, mean: Any, variance: Any) -> Any:
        given = {"training": training, "activation": activation, "residual": residual}
        y = tf.batch_norm(x, gamma, beta, mean, variance, **given)
        return y[0] if training else y

    return function


def categorical(from_logits: bool, smoothing: float = 0.0, weighted: bool = False) -> Callable[..., Any]:
    def reference(x: Any, labels: Any, weight: Any = None) -> Any:
        classes = x.shape[-1]
        target = jax.nn.one_hot(labels, classes, dtype=x.dtype) if labels.ndim < x.ndim else labels
        target = target * (1 - smoothing) + smoothing / classes
        logs = jax.nn.log_softmax(x) if from_logits else jnp.log(x / x.sum(-1, keepdims=True))
        loss = -(target * logs).sum(-1)
        return (loss * weight if weighted else loss).mean()

    return reference


def binary(from_logits: bool) -> Callable[..., Any]:
    def reference(x: Any, labels: Any) -> Any:
        p = jax.nn.sigmoid(x) if from_logits else x
        return -(labels * jnp.log(p) + (1 - labels) * jnp.log(1 - p)).mean()

    return reference


LABELS = np.array([0, 2, 1, 1, 2], np.int32)
SOFT = np.abs(RNG.normal(size=(5, 3)))
SOFT /= SOFT.sum(-1, keepdims=True)
WEIGHT = np.array([1.0, 0.5, 2.0, 0.0, 1.0])
MOVING = (RNG.normal(size=4), RNG.uniform(0.5, 2, size=4))

CASES: dict[str, Case] = {
    **{
        name: Case(getattr(tf, name), ACTIVATIONS[name], ((3, 5),))
        for name in ACTIVATIONS
        if name != "gelu_tanh"
    },
    "gelu_tanh": Case(lambda x: tf.gelu(x, approximate=True), ACTIVATIONS["gelu_tanh"], ((3, 5),)),
    "leaky_relu_slope": Case(
        lambda x: tf.leaky_relu(x, 0.3), lambda x: jnp.where(x > 0, x, 0.3 * x), ((7,),)
    ),
    "add": Case(tf.add, operator.add, ((3, 5), (3, 5))),
    "add_silu": Case(lambda a, b: tf.add(a, b, "silu"), lambda a, b: jax.nn.silu(a + b), ((3, 5), (3, 5))),
    "softmax": Case(tf.softmax, jax.nn.softmax, ((3, 5),)),
    "softmax_axis": Case(lambda x: tf.softmax(x, 0), lambda x: jax.nn.softmax(x, 0), ((3, 5),)),
    "log_softmax": Case(tf.log_softmax, jax.nn.log_softmax, ((2, 3, 5),)),
    "matmul": Case(tf.matmul, jnp.matmul, ((3, 5), (5, 4))),
    "matmul_broadcast": Case(tf.matmul, jnp.matmul, ((2, 1, 3, 5), (4, 5, 2))),
    "matmul_shared": Case(tf.matmul, jnp.matmul, ((2, 3, 5), (5, 2))),
    "matmul_transposed": Case(
        lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True),
        lambda a, b: a.T @ b.T,
        ((5, 3), (4, 5)),
    ),
    "matmul_transpose_a": Case(
        lambda a, b: tf.matmul(a, b, transpose_a=True), lambda a, b: a.mT @ b, ((2, 5, 3), (5, 4))
    ),
    "matmul_transpose_b": Case(
        lambda a, b: tf.matmul(a, b, transpose_b=True), lambda a, b: a @ b.T, ((2, 3, 5), (4, 5))
    ),
    "matmul_bias_gelu": Case(
        lambda a, b, c: tf.matmul(a, b, bias=c, activation="gelu"),
        dense("gelu"),
        ((2, 3, 5), (2, 5, 4), (4,)),
    ),
    "dense": Case(tf.dense, dense(None), ((2, 3, 5), (5, 4), (4,))),
    "dense_vector": Case(tf.dense, dense(None), ((5,), (5, 4))),
    **{
        f"dense_{name}": Case(
            functools.partial(tf.dense, activation=name), dense(name), ((3, 5), (5, 4), (4,))
        )
        for name in ACTIVATIONS
    },
    "conv2d": Case(tf.conv2d, conv(), ((2, 6, 7, 3), (3, 3, 3, 4), (4,))),
    "conv2d_no_bias": Case(tf.conv2d, conv(), ((2, 6, 7, 3), (3, 2, 3, 4))),
    "conv2d_same_strides": Case(
        functools.partial(tf.conv2d, strides=2, padding="same", activation="tanh"),
        conv("tanh", strides=2, padding="SAME"),
        ((2, 6, 7, 3), (3, 3, 3, 4), (4,)),
    ),
    "conv2d_groups_gelu": Case(
        functools.partial(tf.conv2d, padding=1, groups=2, dilation=2, activation="gelu"),
        conv("gelu", padding=[(1, 1), (1, 1)], groups=2, dilation=2),
        ((2, 6, 7, 4), (3, 3, 2, 6), (6,)),
    ),
    "max_pool2d": Case(tf.max_pool2d, pool("max", 2, 2, "VALID"), ((2, 6, 7, 3),)),
    "max_pool2d_overlap": Case(
        functools.partial(tf.max_pool2d, pool_size=3, strides=1, padding="same"),
        pool("max", 3, 1, "SAME"),
        ((2, 6, 7, 3),),
    ),
    "avg_pool2d": Case(
        functools.partial(tf.avg_pool2d, pool_size=3, strides=2, padding="same"),
        pool("avg", 3, 2, "SAME"),
        ((2, 6, 7, 3),),
    ),
    "avg_pool2d_count_padding": Case(
        functools.partial(tf.avg_pool2d, pool_size=3, strides=2, padding="same", count_padding=True),
        pool("avg", 3, 2, "SAME", True),
        ((2, 6, 7, 3),),
    ),
    "global_avg_pool2d": Case(tf.global_avg_pool2d, lambda x: x.mean((1, 2)), ((2, 6, 7, 3),)),
    "layer_norm": Case(tf.layer_norm, layer_norm, ((2, 3, 6), (6,), (6,))),
    "layer_norm_beta": Case(
        lambda x, b: tf.layer_norm(x, None, b), lambda x, b: layer_norm(x, None, b), ((3, 6), (6,))
    ),
    "layer_norm_plain": Case(tf.layer_norm, layer_norm, ((3, 6),)),
    "rms_norm": Case(tf.rms_norm, rms_norm, ((2, 3, 6), (6,))),
    "rms_norm_plain": Case(tf.rms_norm, rms_norm, ((6,),)),
    **{
        f"batch_norm_{name}{'_training' if training else ''}": Case(
            fused_batch_norm(training, name),
            batch_norm(training, name),
            ((3, 2, 4), (4,), (4,), (3, 2, 4)),
            MOVING,
        )
        for name in ("relu", "silu")
        for training in (True, False)
    },
    "batch_norm_plain": Case(
        fused_batch_norm(True), batch_norm(True), ((6, 4), None, None, None), (None, None)
    ),
    "softmax_cross_entropy": Case(tf.softmax_cross_entropy, categorical(True), ((5, 3),), (LABELS,)),
    "softmax_cross_entropy_soft": Case(tf.softmax_cross_entropy, categorical(True), ((5, 3),), (SOFT,)),
    "softmax_cross_entropy_weight": Case(
        lambda x, labels, weight: tf.softmax_cross_entropy(
            x, labels, sample_weight=weight, label_smoothing=0.1
        ),
        categorical(True, 0.1, True),
        ((5, 3),),
        (LABELS, WEIGHT),
    ),
    "categorical_cross_entropy": Case(
        tf.categorical_cross_entropy, categorical(False), ((5, 3),), (LABELS,), True
    ),
    "sigmoid_binary_cross_entropy": Case(tf.sigmoid_binary_cross_entropy, binary(True), ((5, 3),), (SOFT,)),
    "binary_cross_entropy": Case(tf.binary_cross_entropy, binary(False), ((5, 3),), (SOFT,), True),
    "mean_squared_error": Case(
        tf.mean_squared_error, lambda p, t: ((p - t) ** 2).mean(), ((5, 3),), (np.asarray(SOFT),)
    ),
}

# One of each kind, and, as compilers take their time, by default the few that have all there is.
KINDS = [
    name for name in CASES if name.removeprefix("dense_") not in ACTIVATIONS or name in ("relu", "dense_silu")
]
FEW = ("relu", "matmul_bias_gelu", "dense_silu", "conv2d_groups_gelu", "max_pool2d", "layer_norm")
FEW += ("batch_norm_silu_training", "softmax_cross_entropy_weight")
BY_KIND = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in KINDS]


def draw(case: Case, lead: tuple[int, ...] = ()) -> list[Any]:
    def array(shape: tuple[int, ...]) -> Any:
        values = RNG.uniform(0.1, 0.9, lead + shape) if case.positive else RNG.normal(size=lead + shape)
        return jnp.asarray(values.astype(jnp.result_type(float)))

    return [None if shape is None else array(shape) for shape in case.shapes]


def constants(case: Case) -> tuple[Any, ...]:
    floating = jnp.result_type(float)
    return tuple(
        c if c is None else jnp.asarray(c.astype(floating) if c.dtype.kind == "f" else c)
        for c in case.constants
    )


@functools.cache  # compiled once for all tests
def loss_and_gradients(name: str, *, ours: bool) -> Callable[..., Any]:
    """The output of a case, and the gradients of a sum of it with fixed weights."""
    case = CASES[name]
    function = case.function if ours else case.reference
    places = tuple(i for i, shape in enumerate(case.shapes) if shape is not None)

    def total(*arrays: Any) -> Any:
        y = function(*arrays, *constants(case))
        return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum(), y

    return jax.jit(jax.value_and_grad(total, places, has_aux=True))


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, np.abs(theirs).max())
        )


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str) -> None:
    case = CASES[name]
    arrays = draw(case)
    ours = loss_and_gradients(name, ours=True)(*arrays)
    assert_close(ours, loss_and_gradients(name, ours=False)(*arrays), 1e-5)
    # Without jit, and where no gradient is to come, which may be done differently.
    assert_close(ours[0][1], case.function(*arrays, *constants(case)), 1e-6)


@pytest.mark.parametrize("name", BY_KIND)
def test_float64(name: str, x64: None) -> None:
    case = CASES[name]
    arrays = draw(case)
    ours = loss_and_gradients(name, ours=True)(*arrays)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(ours))
    assert_close(ours, loss_and_gradients(name, ours=False)(*arrays), 1e-12)
    given = [array for array in arrays if array is not None]

    def function(*some: Any) -> Any:
        rest = iter(some)
        return case.function(*(a if a is None else next(rest) for a in arrays), *constants(case))

    check_grads(jax.jit(function), given, order=1, modes=["rev"], eps=1e-6)


@pytest.mark.parametrize("name", BY_KIND)
@pytest.mark.parametrize("mapped", ["first", "all"])
def test_vmap(name: str, mapped: str) -> None:
    """Of the first argument alone, and of all: values and gradients are those of one after the other."""
    case = CASES[name]
    many, single = draw(case, (2,)), draw(case)
    axes = [0 if array is not None and (i == 0 or mapped == "all") else None for i, array in enumerate(many)]
    arrays = [m if axis == 0 else s for m, s, axis in zip(many, single, axes, strict=True)]
    ours = jax.jit(jax.vmap(loss_and_gradients(name, ours=True), axes))(*arrays)
    one = loss_and_gradients(name, ours=False)
    each = [one(*(a[i] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True))) for i in range(2)]
    assert_close(ours, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), 1e-5)


def test_vmap_makes_one_call() -> None:
    """Where the op has a batch axis, and also twice."""
    x, w, b = jnp.ones((2, 3, 4, 5)), jnp.ones((5, 6)), jnp.ones(6)

    def calls(function: Callable[..., Any], *arrays: Any) -> tuple[int, bool]:
        text = jax.jit(function).lower(*arrays).as_text()
        return text.count("stablehlo.custom_call @tilefuse_"), "stablehlo.while" in text

    for function, arrays in (
        (lambda x: tf.dense(x, w, b, "relu"), (x,)),
        (tf.softmax, (x,)),
        (tf.relu, (x,)),
        (tf.layer_norm, (x,)),
        (lambda x: tf.softmax_cross_entropy(x, jnp.zeros(4, int)), (x,)),
        (lambda x: tf.matmul(x, jnp.ones((2, 5, 3))), (jnp.ones((2, 3, 1, 4, 5)),)),
    ):
        assert calls(jax.vmap(jax.vmap(function)), *arrays) == (1, False)
    images = jnp.ones((2, 1, 6, 6, 3))
    for function in (tf.max_pool2d, lambda x: tf.conv2d(x, jnp.ones((3, 3, 3, 4)))):
        assert calls(jax.vmap(function), images) == (1, False)
    # Its gradient at x too: forward and backward.
    assert calls(jax.vmap(jax.grad(lambda x: tf.softmax(x)[0].sum())), jnp.ones((3, 4, 5))) == (2, False)


def test_matmul_of_many_axes_under_vmap() -> None:
    a, b = RNG.normal(size=(2, 1, 2, 1, 2, 1, 2, 3, 4)), RNG.normal(size=(2, 1, 2, 1, 2, 1, 2, 4, 2))
    a, b = jnp.asarray(a, np.float32), jnp.asarray(b, np.float32)
    assert_close(jax.vmap(tf.matmul)(a, b), a @ b, 1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
def test_dropout(rate: float) -> None:
    """The masks of tilefuse.ops, also of a step that is traced; the gradient goes where the mask is."""
    x = RNG.normal(size=(33, 70)).astype(np.float32)
    step = jax.jit(
        lambda x, step: jax.value_and_grad(lambda x: tf.dropout(x, rate, seed=5, step=step).sum())(x)
    )
    for number in (0, 7, 2**32 - 1):
        y, mask = ops.dropout(x, rate, seed=5, step=number)
        assert (tf.dropout(x, rate, seed=5, step=number) == y).all()
        total, dx = step(x, np.uint32(number))
        np.testing.assert_allclose(total, y.sum(), rtol=1e-4)
        assert (dx == ops.dropout_backward(np.ones_like(x), mask, rate)).all()
    rows = jax.vmap(lambda row: tf.dropout(row, rate, seed=5))(jnp.asarray(x))
    assert (rows == x * tf.dropout(np.ones(70, np.float32), rate, seed=5)).all()


def test_batch_norm_returns_what_moves() -> None:
    x, mean, variance = (RNG.uniform(1, 2, size=s).astype(np.float32) for s in ((6, 3), (3,), (3,)))
    given = jnp.asarray(mean), jnp.asarray(variance)
    step = jax.jit(functools.partial(tf.batch_norm, training=True, momentum=0.75))
    y, new_mean, new_variance = step(x, None, None, *given)
    expected = mean.copy(), variance.copy()
    theirs, *_ = ops.batch_norm(x, None, None, *expected, training=True, momentum=0.75)
    assert (y == theirs).all()
    assert (new_mean == expected[0]).all()
    assert (new_variance == expected[1]).all()
    assert (given[0] == mean).all()  # as they were
    assert (given[1] == variance).all()
    assert tf.batch_norm(x, None, None, None, None, training=True)[1:] == (None, None)


def test_empty_arrays() -> None:
    assert tf.dense(jnp.ones((0, 3)), jnp.ones((3, 2))).shape == (0, 2)
    assert jax.grad(lambda w: tf.dense(jnp.ones((0, 3)), w).sum())(jnp.ones((3, 2))).tolist() == [[0, 0]] * 3
    assert tf.softmax(jnp.ones((2, 0))).shape == (2, 0)
    assert tf.conv2d(jnp.ones((0, 4, 4, 1)), jnp.ones((3, 3, 1, 2))).shape == (0, 2, 2, 2)


def test_nothing_is_copied() -> None:
    """XLA hands the arguments' and the result's own memory to the kernel, and needs none besides."""
    x, w, b = jnp.ones((64, 32)), jnp.ones((32, 16)), jnp.ones(16)
    compiled = jax.jit(functools.partial(tf.dense, activation="relu")).lower(x, w, b).compile()
    text = compiled.as_text()
    assert text.count("custom-call(") == 1
    assert "copy(" not in text
    assert "transpose(" not in text
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes == 0
    assert memory.argument_size_in_bytes == sum(a.nbytes for a in (x, w, b))


def test_results_do_not_depend_on_threads(set_num_threads: Callable[[int], None]) -> None:
    x, w = (jnp.asarray(RNG.normal(size=s), np.float32) for s in ((300, 200), (200, 100)))
    gradient = jax.jit(
        jax.grad(lambda x, w: tf.softmax_cross_entropy(tf.dense(x, w), jnp.zeros(300, int)), (0, 1))
    )
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append([np.asarray(g) for g in gradient(x, w)])
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: tf.relu(jnp.ones(3, int)), TypeError, "x has dtype int32; expected float32 or float64"),
        (
            lambda: tf.dense(jnp.ones((2, 3)), jnp.ones((4, 2))),
            ValueError,
            r"x has shape \(2, 3\) and w \(4, 2\)",
        ),
        (lambda: tf.dense(jnp.ones((2, 3)), jnp.ones((3, 2)), jnp.ones(3)), ValueError, r"expected \(2,\)"),
        (
            lambda: tf.dense(jnp.ones((2, 3)), jnp.ones((3, 2)), None, "rule"),
            ValueError,
            "unknown activation 'rule'",
        ),
        (lambda: tf.dense(jnp.ones((2, 3)), jnp.ones((3, 2), jnp.float16)), TypeError, "w has dtype float16"),
        (lambda: tf.matmul(jnp.ones(3), jnp.ones((3, 2))), ValueError, "expected 2 to 8 axes"),
        (
            lambda: tf.matmul(jnp.ones((2, 2, 3)), jnp.ones((3, 3, 2))),
            ValueError,
            "leading axes that broadcast",
        ),
        (lambda: tf.matmul(jnp.ones((2, 3)), jnp.ones((2, 3))), ValueError, "k is 3 in a and 2 in b"),
        (lambda: tf.conv2d(jnp.ones((2, 3, 3)), jnp.ones((3, 3, 1, 1))), ValueError, "expected four axes"),
        (
            lambda: tf.conv2d(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 1, 1))),
            ValueError,
            "expected 2, as x has shape",
        ),
        (
            lambda: tf.conv2d(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2, 1)), groups=2),
            ValueError,
            "groups is 2",
        ),
        (lambda: tf.max_pool2d(jnp.ones((1, 3, 3, 2)), 2, padding=2), ValueError, "no element of x"),
        (lambda: tf.softmax(jnp.ones((1, 3)), 2), ValueError, "axis is 2"),
        (lambda: tf.dropout(jnp.ones(3), 1.0), ValueError, "rate is 1.0"),
        (lambda: tf.add(jnp.ones(3), jnp.ones(4)), ValueError, r"b has shape \(4,\); expected \(3,\)"),
        (lambda: tf.layer_norm(jnp.ones(3), epsilon=-1), ValueError, "epsilon is -1"),
        (lambda: tf.batch_norm(jnp.ones((2, 3)), None, None, None, None), ValueError, "moving_mean"),
        (
            lambda: tf.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 4))),
            ValueError,
            "labels have shape",
        ),
        (lambda: tf.mean_squared_error(jnp.ones((2, 3)), jnp.ones(2)), ValueError, "target has shape"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_handlers_check_what_they_get() -> None:
    x = jnp.ones((2, 3), np.float32)
    y = {"y": Shape(x.shape, x.dtype)}
    for fields, text in (
        ({"rows": -1, "cols": 3}, "rows is -1; expected 0 or more"),
        ({"rows": 2, "cols": 3, "colour": 1}, "attribute colour is not a number of this kernel's"),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match=text):
            jax.block_until_ready(launch("softmax", {"x": x}, y, fields))
    with pytest.raises(jax.errors.JaxRuntimeError, match="x is null"):
        jax.block_until_ready(launch("softmax", {}, y, {"rows": 2, "cols": 3}))


def test_no_derivatives_of_other_kinds() -> None:
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(tf.relu, (jnp.ones(3),), (jnp.ones(3),))


def test_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["jax_mnist_mlp.py", "--epochs", "4"])
    runpy.run_path(str(Path(__file__).parents[2] / "examples/jax_mnist_mlp.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert float(out.partition("test accuracy ")[2]) > 0.92


def test_alias() -> None:
    from tilefuse.interop import jax as module

    assert tf.__all__ == module.__all__
    assert all(getattr(tf, name) is getattr(module, name) for name in tf.__all__)
    forward = {
        name for name in ops.__all__ if not name.endswith(("_backward", "_step")) and "clip" not in name
    }
    assert set(tf.__all__) == forward
