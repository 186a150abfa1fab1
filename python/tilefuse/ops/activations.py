"""Elementwise activations and their gradients.

Each takes and returns arrays of one shape and dtype. Arrays that are not contiguous are copied first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numpy.typing import ArrayLike

from ._activation import backward, forward
from ._arrays import Array

__all__ = [
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]

_Op = TypeVar("_Op", bound=Callable[..., Array])

_FORWARD = """{summary}

Parameters
----------
x : array_like of float32 or float64, any shape
    Copied first if it is not contiguous.
{options}
Returns
-------
y : ndarray, shape and dtype of `x`

Raises
------
TypeError
    `x` is not of float32 or float64.

Examples
--------
>>> import numpy as np
>>> from tilefuse import ops
>>> {example}
"""

_BACKWARD = """{summary}

Parameters
----------
dy : array_like of float32 or float64, any shape
    The gradient at the output. Copied first if it is not contiguous.
{at} : array_like, shape and dtype of `dy`
    The {at_text} of the activation.
{options}
Returns
-------
dx : ndarray, shape and dtype of `dy`
    The gradient at the input.

Raises
------
TypeError
    An array is not of float32 or float64, or the two dtypes differ.
ValueError
    The shapes differ.

Examples
--------
>>> import numpy as np
>>> from tilefuse import ops
>>> {example}
"""


def _op(example: str, options: str = "") -> Callable[[_Op], _Op]:
    """Completes the docstring of an activation, which gives the summary, with what they have in common."""

    def complete(function: _Op) -> _Op:
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        summary = (function.__doc__ or "").strip()
        if arguments[0] == "x":
            function.__doc__ = _FORWARD.format(summary=summary, options=options, example=example)
        else:
            function.__doc__ = _BACKWARD.format(
                summary=summary,
                at=arguments[1],
                at_text={"x": "input", "y": "output"}[arguments[1]],
                options=options,
                example=example,
            )
        return function

    return complete


_SLOPE = "negative_slope : float\n    What negative inputs are multiplied by.\n"
_ALPHA = "alpha : float\n    ``-alpha`` is the limit of `elu` for ``x -> -inf``.\n"
_APPROXIMATE = "approximate : bool\n    Whether ``Phi(x)`` is approximated through tanh.\n"


@_op("ops.relu(np.array([-1.0, 2.0]))\narray([0., 2.])")
def relu(x: ArrayLike) -> Array:
    """``max(x, 0)``."""
    return forward("relu", x)


@_op("ops.relu_backward(np.array([3.0, 3.0]), np.array([0.0, 2.0]))\narray([0., 3.])")
def relu_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """The gradient of :func:`relu`: `dy` where `y` is positive, else 0."""
    return backward("relu", dy, y)


@_op("ops.leaky_relu(np.array([-1.0, 2.0]))\narray([-0.2,  2. ])", _SLOPE)
def leaky_relu(x: ArrayLike, negative_slope: float = 0.2) -> Array:
    """``x`` where that is positive, ``negative_slope * x`` elsewhere."""
    return forward("leaky_relu", x, negative_slope)


@_op("ops.leaky_relu_backward(np.array([3.0, 3.0]), np.array([-0.5, 2.0]), 0.5)\narray([1.5, 3. ])", _SLOPE)
def leaky_relu_backward(dy: ArrayLike, y: ArrayLike, negative_slope: float = 0.2) -> Array:
    """The gradient of :func:`leaky_relu`, for slopes that are not negative."""
    return backward("leaky_relu", dy, y, negative_slope)


@_op("ops.elu(np.array([-np.inf, 2.0]))\narray([-1.,  2.])", _ALPHA)
def elu(x: ArrayLike, alpha: float = 1.0) -> Array:
    """``x`` where that is positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    return forward("elu", x, alpha)


@_op("ops.elu_backward(np.array([3.0, 3.0]), np.array([-0.5, 2.0]))\narray([1.5, 3. ])", _ALPHA)
def elu_backward(dy: ArrayLike, y: ArrayLike, alpha: float = 1.0) -> Array:
    """The gradient of :func:`elu`."""
    return backward("elu", dy, y, alpha)


@_op("ops.selu(np.array([-1.0, 2.0])).round(4)\narray([-1.1113,  2.1014])")
def selu(x: ArrayLike) -> Array:
    """``1.0507 * elu(x, 1.6733)``: keeps activations near mean 0 and variance 1.

    Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """
    return forward("selu", x)


@_op("ops.selu_backward(np.array([1.0, 1.0]), np.array([-1.1113, 2.1014])).round(4)\narray([0.6468, 1.0507])")
def selu_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """The gradient of :func:`selu`."""
    return backward("selu", dy, y)


@_op("ops.sigmoid(np.array([0.0, 2.0])).round(4)\narray([0.5   , 0.8808])")
def sigmoid(x: ArrayLike) -> Array:
    """``1 / (1 + exp(-x))``."""
    return forward("sigmoid", x)


@_op("ops.sigmoid_backward(np.array([1.0, 1.0]), np.array([0.5, 0.75]))\narray([0.25  , 0.1875])")
def sigmoid_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """The gradient of :func:`sigmoid`: ``dy * y * (1 - y)``."""
    return backward("sigmoid", dy, y)


@_op("ops.tanh(np.array([0.0, 2.0])).round(4)\narray([0.   , 0.964])")
def tanh(x: ArrayLike) -> Array:
    """The hyperbolic tangent."""
    return forward("tanh", x)


@_op("ops.tanh_backward(np.array([1.0, 1.0]), np.array([0.0, 0.5]))\narray([1.  , 0.75])")
def tanh_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """The gradient of :func:`tanh`: ``dy * (1 - y * y)``."""
    return backward("tanh", dy, y)


@_op("ops.softplus(np.array([0.0, 2.0])).round(4)\narray([0.6931, 2.1269])")
def softplus(x: ArrayLike) -> Array:
    """``log(1 + exp(x))``, without overflow."""
    return forward("softplus", x)


@_op("ops.softplus_backward(np.array([1.0]), np.array([np.log(2)])).round(4)\narray([0.5])")
def softplus_backward(dy: ArrayLike, y: ArrayLike) -> Array:
    """The gradient of :func:`softplus`: ``dy * (1 - exp(-y))``."""
    return backward("softplus", dy, y)


@_op("ops.silu(np.array([-1.0, 2.0])).round(4)\narray([-0.2689,  1.7616])")
def silu(x: ArrayLike) -> Array:
    """``x * sigmoid(x)``, also known as swish."""
    return forward("silu", x)


@_op("ops.silu_backward(np.array([1.0, 1.0]), np.array([0.0, 2.0])).round(4)\narray([0.5   , 1.0908])")
def silu_backward(dy: ArrayLike, x: ArrayLike) -> Array:
    """The gradient of :func:`silu`."""
    return backward("silu", dy, x)


@_op("ops.gelu(np.array([-1.0, 2.0])).round(4)\narray([-0.1587,  1.9545])", _APPROXIMATE)
def gelu(x: ArrayLike, approximate: bool = False) -> Array:
    """``x * Phi(x)`` with the normal distribution's ``Phi``."""
    return forward("gelu_tanh" if approximate else "gelu", x)


@_op(
    "ops.gelu_backward(np.array([1.0, 1.0]), np.array([0.0, 2.0])).round(4)\narray([0.5   , 1.0852])",
    _APPROXIMATE,
)
def gelu_backward(dy: ArrayLike, x: ArrayLike, approximate: bool = False) -> Array:
    """The gradient of :func:`gelu`."""
    return backward("gelu_tanh" if approximate else "gelu", dy, x)
