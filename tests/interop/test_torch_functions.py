"""The ops as functions of PyTorch: gradients, the registered operators, compilation, autocast."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tilefuse import ops

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tilefuse.interop.torch import functions  # noqa: E402
from tilefuse.interop.torch.functions import OPS  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

SMOOTH = ("elu", "selu", "sigmoid", "tanh", "softplus", "silu", "gelu")
ACTIVATIONS = ("relu", "leaky_relu", *SMOOTH)


def random(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Any:
    """Numbers that differ from each other and from 0 by far more than a gradcheck's step."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    grid = np.linspace(low, high, 2 * count + 1)[1::2] + 0.007 * seed
    return torch.from_numpy(rng.permutation(grid).reshape(shape))


def images(h: int = 5, w: int = 6, c: int = 2) -> Any:
    return random(2, h, w, c)


def filters(kernel: int = 3, c: int = 2, f: int = 4) -> Any:
    return random(kernel, kernel, c, f, seed=1)


def positive(*shape: int) -> Any:
    return random(*shape, low=0.1, high=0.9)


def call(name: str, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return name, args, kwargs


CASES = {
    **{name: call(name, random(3, 4)) for name in ACTIVATIONS},
    "leaky_relu slope": call("leaky_relu", random(3, 4), 0.3),
    "elu alpha": call("elu", random(3, 4), alpha=0.7),
    "gelu tanh": call("gelu", random(3, 4), approximate=True),
    "softmax": call("softmax", random(2, 3, 4)),
    "softmax axis": call("softmax", random(2, 3, 4), axis=1),
    "log_softmax": call("log_softmax", random(2, 3, 4)),
    "add": call("add", random(3, 4), random(3, 4, seed=1)),
    "add relu": call("add", random(3, 4), random(3, 4, seed=1), "relu"),
    "add gelu": call("add", random(3, 4), random(3, 4, seed=1), activation="gelu"),
    "dense": call("dense", random(5, 4), random(4, 3, seed=1)),
    "dense bias": call("dense", random(2, 5, 4), random(4, 3, seed=1), random(3, seed=2)),
    "dense transposed": call("dense", random(5, 4), random(3, 4, seed=1).t(), random(3, seed=2)),
    "matmul": call("matmul", random(5, 4), random(4, 3, seed=1)),
    "matmul batch": call(
        "matmul", random(2, 1, 5, 4), random(3, 2, 4, seed=1), bias=random(2, seed=2), transpose_b=True
    ),
    "matmul transposed": call(
        "matmul", random(4, 5), random(4, 3, seed=1), transpose_a=True, activation="gelu"
    ),
    "conv2d": call("conv2d", images(), filters()),
    "conv2d same": call("conv2d", images(), filters(), random(4, seed=2), strides=2, padding="same"),
    "conv2d padded": call("conv2d", images(), filters(), padding=((1, 0), (2, 1)), dilation=(1, 2)),
    "conv2d groups": call("conv2d", images(c=4), filters(2, 2), groups=2, padding=1),
    **{
        f"{name} {activation}": call(*head, activation=activation)
        for activation in ("relu", "sigmoid", "gelu")
        for name, head in {
            "dense": ("dense", random(5, 4), random(4, 3, seed=1), random(3, seed=2)),
            "conv2d": ("conv2d", images(), filters(), random(4, seed=2)),
        }.items()
    },
    **{
        f"conv2d_max_pool2d {activation}": call(
            "conv2d_max_pool2d", images(), filters(), random(4, seed=2), 2, padding=1, activation=activation
        )
        for activation in (None, "relu", "tanh")
    },
    "max_pool2d": call("max_pool2d", images()),
    "max_pool2d same": call("max_pool2d", images(), (3, 2), strides=2, padding="same"),
    "avg_pool2d": call("avg_pool2d", images(), 2, 1),
    "avg_pool2d padded": call("avg_pool2d", images(), 3, padding=1, count_padding=True),
    "global_avg_pool2d": call("global_avg_pool2d", images()),
    "layer_norm": call("layer_norm", random(5, 4), random(4, seed=1), random(4, seed=2)),
    "layer_norm plain": call("layer_norm", random(5, 4), epsilon=1e-5),
    "rms_norm": call("rms_norm", random(5, 4), random(4, seed=1)),
    **{
        f"batch_norm {training} {activation}": call(
            "batch_norm",
            *(random(5, 4), random(4, seed=1), random(4, seed=2), random(4, seed=3), positive(4)),
            training=training,
            activation=activation,
            residual=None if activation is None else random(5, 4, seed=5),
        )
        for training in (False, True)
        for activation in (None, "relu", "gelu")
    },
    "dropout": call("dropout", random(5, 4), 0.4, seed=3, step=1),
    "softmax_cross_entropy": call(
        "softmax_cross_entropy", random(4, 3), torch.tensor([0, 2, 1, 1]), label_smoothing=0.1
    ),
    "softmax_cross_entropy weighted": call(
        "softmax_cross_entropy", random(4, 3), positive(4, 3), sample_weight=positive(4)
    ),
    "categorical_cross_entropy": call(
        "categorical_cross_entropy", positive(4, 3), torch.tensor([0, 2, 1, 1])
    ),
    "sigmoid_binary_cross_entropy": call("sigmoid_binary_cross_entropy", random(4, 3), positive(4, 3)),
    "binary_cross_entropy": call("binary_cross_entropy", positive(4, 3), positive(4, 3)),
    "mean_squared_error": call("mean_squared_error", random(4, 3), random(4, 3, seed=1)),
}
of_cases = pytest.mark.parametrize("case", CASES)


def first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def watched(name: str, args: Any, kwargs: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A function of those arguments that have a gradient, and these arguments."""
    function = getattr(functions, name)
    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    inputs = {"x", "w", "b", "a", "bias", "gamma", "beta", "residual", "logits", "probs", "pred"}
    names = [key for key, value in arguments.items() if isinstance(value, torch.Tensor) and key in inputs]
    constant = {key: value for key, value in arguments.items() if key not in names}
    if name == "batch_norm" and kwargs["training"]:
        constant |= {"moving_mean": None, "moving_variance": None}

    def of_inputs(*tensors: Any) -> Any:
        return first(function(**dict(zip(names, tensors, strict=True)), **constant))

    return of_inputs, [arguments[key].detach().clone().requires_grad_() for key in names]


def test_every_op_has_a_case() -> None:
    assert {name for name, _, _ in CASES.values()} == {*functions.__all__, "conv2d_max_pool2d"}


@of_cases
def test_result_is_that_of_ops(case: str) -> None:
    name, args, kwargs = CASES[case]
    if name == "conv2d_max_pool2d":
        pytest.skip("not in tilefuse.ops")
    as_arrays = [a.numpy().copy() if isinstance(a, torch.Tensor) else a for a in args]
    expected = getattr(ops, name)(
        *as_arrays, **{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
    )
    args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
    actual = getattr(functions, name)(*args, **kwargs)
    assert isinstance(actual, tuple) == isinstance(expected, tuple)
    pairs = zip(actual, expected, strict=True) if isinstance(actual, tuple) else [(actual, expected)]
    for mine, theirs in pairs:
        np.testing.assert_array_equal(mine.numpy(), theirs)
    if kwargs.get("training"):
        for mine, theirs in zip(args[3:], as_arrays[3:], strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-12)


@of_cases
def test_gradient(case: str) -> None:
    function, inputs = watched(*CASES[case])
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize(
    "case", ["dense relu", "conv2d gelu", "max_pool2d same", "batch_norm True relu", "dropout"]
)
def test_compiled(case: str) -> None:
    """The registered operators, traced forward and backward, give what the eager functions do."""
    torch.compiler.reset()
    function, inputs = watched(*CASES[case])
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    dy = random(*function(*inputs).shape, seed=9)
    results = []
    for each in (function, compiled):
        y = each(*inputs)
        results.append([y, *torch.autograd.grad(y, inputs, dy)])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-12, atol=1e-12)


class Calls(TorchDispatchMode):
    """Notes the calls of tilefuse's operators."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "tilefuse":
            self.seen.append(
                (function, tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in args))
            )
        return function(*args, **(kwargs or {}))


def operator_calls(case: str) -> list[tuple[Any, tuple[Any, ...]]]:
    function, inputs = watched(*CASES[case])
    with Calls() as calls:
        function(*inputs).sum().backward()
    return calls.seen


@of_cases
def test_operators(case: str) -> None:
    for operator, args in operator_calls(case):
        wanted = [a.clone().requires_grad_() if _is_float(a) else a for a in args]
        backward = operator._opname.endswith("_backward")
        torch.library.opcheck(operator, args if backward else wanted)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def test_every_operator_is_checked() -> None:
    seen = {operator._opname for case in CASES for operator, _ in operator_calls(case)}
    assert seen == set(OPS)


def test_gradients_of_gradients_are_refused() -> None:
    w = torch.ones(3, 2, requires_grad=True)
    x = torch.ones(4, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(functions.dense(x, w, activation="tanh").sum(), x, create_graph=True)
    assert dx.requires_grad
    with pytest.raises(RuntimeError, match=r"the gradient of dense has no derivative itself"):
        ((dx.norm(dim=1) - 1) ** 2).mean().backward()


def test_the_gradient_given_is_left_alone() -> None:
    a, b, dy = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True), torch.ones(3)
    torch.autograd.grad(functions.add(a, b), (a, b), dy, create_graph=True)
    assert not dy.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, on its way there
def test_forward_mode_derivatives_are_refused() -> None:
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        assert torch.equal(functions.relu(torch.ones(2)), torch.ones(2))
        with pytest.raises(NotImplementedError, match=r"relu has no forward-mode derivative"):
            functions.relu(forward_ad.make_dual(torch.ones(2), torch.ones(2)))


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize(
    ("args", "options"),
    [((), {}), ((0,) * 9, {}), ((), {"x": 0}), ((), {"out": 0}), ((), {"beta": 1.0})],
    ids=["too few", "too many", "twice", "out", "beta"],
)
def test_wrong_arguments(wants: bool, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    x = torch.ones(2, 2, requires_grad=wants)
    given = {"a": x, **options} if "x" in options else options
    with pytest.raises(TypeError, match=r"argument"):
        functions.matmul(x, *args, **given)
    assert "out" not in inspect.signature(functions.matmul).parameters
