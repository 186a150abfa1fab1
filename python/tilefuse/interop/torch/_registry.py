"""The ops of `tilefuse.ops` as operators of PyTorch, made from their signatures and the tape's gradients.

An op is called on one of three roads. `Op.plain` runs the kernel and no more. Where a gradient is wanted,
`_Recorded`, an autograd.Function, costs about half of what the registered operator costs in eager mode. The
registered operator, `torch.ops.tilefuse.NAME`, is for whoever has to see the operators: torch.compile,
torch.export, modes that trace or count.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from tilefuse._gradients import RULES, needed_by_rule
from tilefuse.ops._windows import explicit_padding, pair

_Functions = dict[str, Callable[..., Any]]
_Arguments = dict[str, Any]
_Fake = Callable[..., Any]

_TENSORS = (Tensor, Parameter)  # neither subclasses nor what compilers trace with
# What operators that change no argument can't have, or what saves them nothing.
_SAVING = ("dense_backward", "conv2d_backward", "conv2d_pooled_backward")
_LEFT_OUT = {"matmul": ("out", "beta"), **dict.fromkeys(_SAVING, ("needs_dx",))}

_SCHEMA_TYPES = {  # of the annotations in tilefuse.ops
    "ArrayLike": "Tensor",
    "ArrayLike | None": "Tensor?",
    "float": "float",
    "int": "int",
    "bool": "bool",
    "str | None": "str?",
    "int | Sequence[int]": "int[2]",
    "int | Sequence[int] | None": "int[2]?",
    "Padding": "int[4]",  # top, bottom, left, right
    "Array": "Tensor",
    "tuple[Array, Array]": "(Tensor, Tensor)",
    "tuple[Array, Array, Array]": "(Tensor, Tensor, Tensor)",
    "tuple[Array, ...]": "Tensor[]",
}


# All ops, for the rules of the gradients.
PLAIN: _Functions = {}
TRACED: _Functions = {}


class Op:
    """One function of `tilefuse.ops`, and the operator made of it."""

    def __init__(
        self, name: str, function: Callable[..., Any], fake: _Fake, rule: Any = None, **fixed: Any
    ) -> None:
        self.name, self.function, self.fixed = name, function, fixed
        self.inputs: Sequence[str]
        self.rule: Any
        self.inputs, self.rule = rule or RULES.get(function.__name__, ((), None))
        parameters = inspect.signature(function).parameters
        self.parameters = [
            p for key, p in parameters.items() if key not in (*_LEFT_OUT.get(name, ()), *fixed)
        ]
        self.signature = inspect.Signature(self.parameters)
        self.defaults = {p.name: p.default for p in self.parameters}
        self.where = {name: i for i, name in enumerate(self.defaults)}
        self.has_precision = "precision" in self.defaults
        self._register(fake)

    # The three roads, by arguments.

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel."""
        return self.function(*args, **kwargs, **self.fixed)

    def recorded(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel, and record it for the gradient."""
        return _Recorded.apply(self, *self.bound(args, kwargs).values())

    def traced(self, *args: Any, **kwargs: Any) -> Any:
        """Call the registered operator."""
        return self.operator(*self._canonical(self.bound(args, kwargs)).values())

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Arguments:
        """Return the arguments by name, in the order of the parameters."""
        given = dict(zip(self.defaults, args, strict=False))
        arguments = {**self.defaults, **given, **kwargs}
        is_wrong = (
            len(args) > len(given)
            or len(arguments) > len(self.defaults)
            or any(key in given for key in kwargs)
        )
        if is_wrong or any(value is inspect.Parameter.empty for value in arguments.values()):
            self.signature.bind(*args, **kwargs)  # says what is wrong
        return arguments

    def remember(self, ctx: Any, arguments: _Arguments, results: Sequence[Tensor]) -> None:
        """Keep what the gradient needs in the context of an autograd node."""
        kept, keeps_output = needed_by_rule(self.function.__name__, arguments | self.fixed)
        values = [
            True if isinstance(value, Tensor) and key not in kept else value
            for key, value in arguments.items()
        ]  # rules ask of some arrays no more than whether they are None
        values += [y if keeps_output or i > 0 else None for i, y in enumerate(results)]
        ctx.save_for_backward(*(value if isinstance(value, Tensor) else None for value in values))
        ctx.plain = [None if isinstance(value, Tensor) else value for value in values]
        ctx.set_materialize_grads(False)
        if len(results) > 1:
            ctx.mark_non_differentiable(*results[1:])

    def gradients(self, ctx: Any, functions: _Functions, dy: Tensor, needed: Sequence[bool]) -> list[Any]:
        """Return a gradient for each argument that needs one, and None for the others."""
        values = [p if t is None else t for p, t in zip(ctx.plain, ctx.saved_tensors, strict=True)]
        arguments = dict(zip(self.defaults, values, strict=False)) | self.fixed
        results = values[len(self.defaults) :]
        assert self.rule is not None
        found = self.rule(functions, dy, results[0] if len(results) == 1 else tuple(results), arguments)
        gradients: list[Any] = [None] * len(self.defaults)
        for key, gradient in zip(self.inputs, found, strict=True):
            if needed[self.where[key]]:
                gradients[self.where[key]] = gradient
        return gradients

    def _register(self, fake: _Fake) -> None:
        operator = torch.library.custom_op(
            f"tilefuse::{self.name}",
            self._kernel,
            mutates_args=(),
            schema=_schema(self),
            device_types="cpu",
        )
        operator.register_fake(lambda *args: fake(self.bound(args, {})))
        operator.register_autocast("cpu", torch.float32)
        if self.rule is not None:
            operator.register_autograd(self._traced_backward, setup_context=self._setup_context)
        self.operator = getattr(torch.ops.tilefuse, self.name).default

    def _kernel(self, *args: Any) -> Any:
        arguments = self.bound(args, {})
        if "padding" in arguments:
            top, bottom, left, right = arguments["padding"]
            arguments |= {"padding": ((top, bottom), (left, right)), "strides": tuple(arguments["strides"])}
        result = self.plain(**arguments)
        return list(result) if _returns(self) == "Tensor[]" else result

    def _canonical(self, arguments: _Arguments) -> _Arguments:
        """Return the arguments as the operator's schema has them."""
        a = dict(arguments)
        if "pool_size" in a:
            a["pool_size"] = pair(a["pool_size"], "pool_size")
            if a["strides"] is None:
                a["strides"] = a["pool_size"]
        for key in ("strides", "dilation"):
            if key in a:
                a[key] = pair(a[key], key)
        if "padding" in a and not _is_flat(a["padding"]):
            kernel = tuple(a["w"].shape[:2]) if "w" in a else a["pool_size"]
            sides = explicit_padding(
                tuple(a["x"].shape[1:3]), kernel, a["strides"], a["padding"], a.get("dilation", (1, 1))
            )
            a["padding"] = [n for side in sides for n in side]
        return a

    def _setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = output if isinstance(output, tuple) else (output,)
        self.remember(ctx, dict(zip(self.defaults, inputs, strict=True)), results)

    def _traced_backward(self, ctx: Any, dy: Tensor | None, *others: Any) -> Any:
        if dy is None:
            return (None,) * len(self.defaults)
        return tuple(self.gradients(ctx, TRACED, dy, ctx.needs_input_grad))


class _Recorded(torch.autograd.Function):
    """An op in eager mode."""

    @staticmethod
    def forward(ctx: Any, op: Op, *values: Any) -> Any:
        arguments = dict(zip(op.defaults, values, strict=True))
        result = op.plain(**arguments)
        op.remember(ctx, arguments, result if isinstance(result, tuple) else (result,))
        ctx.op = op
        return result

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *others: Any) -> Any:
        if dy is None:
            return (None,) * len(ctx.needs_input_grad)
        op, needed = ctx.op, ctx.needs_input_grad[1:]
        functions = PLAIN if needed[op.where[op.inputs[0]]] else _without_dx()
        if not torch.is_grad_enabled():
            return None, *op.gradients(ctx, functions, dy, needed)
        with torch.no_grad():
            gradients = op.gradients(ctx, functions, dy, needed)
        return None, *(
            None if g is None else _WithoutGradient.apply(g.detach().requires_grad_(), op.name)
            for g in gradients
        )


class _WithoutGradient(torch.autograd.Function):
    """A gradient in a graph that somebody wants to differentiate again (``create_graph=True``)."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, name: str) -> Tensor:
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *dy: Any) -> Any:
        raise RuntimeError(
            f"tilefuse.torch: the gradient of {ctx.name} has no derivative itself; where one is wanted "
            "(a gradient penalty, for one) use PyTorch's own functions and modules"
        )


@functools.cache
def _without_dx() -> _Functions:
    """The plain roads, without gradients at `x`, which cost as much as those at the weights."""
    return PLAIN | {name: functools.partial(PLAIN[name], needs_dx=False) for name in _SAVING}


def public(op: Op) -> Callable[..., Any]:
    """Return the function that takes the cheapest road for each call."""

    @functools.wraps(op.function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            args, kwargs = _in_single(op, args, kwargs)
        if torch.compiler.is_compiling() or not _is_eager(args) or not _is_eager(kwargs.values()):
            return op.traced(*args, **kwargs)
        if torch.is_grad_enabled() and op.rule is not None and _wants_gradient(args, kwargs):
            return op.recorded(*args, **kwargs)
        if not kwargs.keys() <= op.defaults.keys():
            op.signature.bind(*args, **kwargs)
        if forward_ad._current_level >= 0 and _has_tangent((*args, *kwargs.values())):
            raise NotImplementedError(
                f"tilefuse.torch.{op.name} has no forward-mode derivative: use PyTorch's own, or backward()"
            )
        return op.plain(*args, **kwargs)

    call.__signature__ = op.signature  # type: ignore[attr-defined]
    return call


def _has_tangent(values: Iterable[Any]) -> bool:
    return any(isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in values)


def _is_eager(values: Iterable[Any]) -> bool:
    """Whether nobody has to see an operator with these arguments."""
    if is_in_torch_dispatch_mode():
        return False
    return all(type(value) in _TENSORS for value in values if isinstance(value, Tensor))


def _wants_gradient(args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values()))


def _in_single(op: Op, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments in float32, and products in the precision of the autocast."""
    args = tuple(_single(value) for value in args)
    kwargs = {key: _single(value) for key, value in kwargs.items()}
    if op.has_precision and torch.get_autocast_dtype("cpu") == torch.bfloat16:
        first = args[0] if args else next(iter(kwargs.values()))
        if kwargs.get("precision") is None and isinstance(first, Tensor) and first.dtype == torch.float32:
            kwargs["precision"] = "bfloat16"
    return args, kwargs


def _single(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value


def _is_flat(padding: Any) -> bool:
    return isinstance(padding, (list, tuple)) and len(padding) == 4


def _returns(op: Op) -> str:
    if op.function.__name__ == "batch_norm":
        return "(Tensor, Tensor, Tensor)" if op.fixed["training"] else "Tensor"
    return _SCHEMA_TYPES[inspect.signature(op.function).return_annotation]


def _schema(op: Op) -> str:
    """Return the operator's signature. All arguments are positional: PyTorch has no gradients of others."""
    declared = [f"{_SCHEMA_TYPES[parameter.annotation]} {parameter.name}" for parameter in op.parameters]
    return f"({', '.join(declared)}) -> {_returns(op)}"
