"""Kernels as JAX primitives: through XLA's foreign function interface, on the arrays' own memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from tilefuse import _core

Array: TypeAlias = jax.Array
Shape: TypeAlias = jax.ShapeDtypeStruct

ACTIVATIONS = {name: number for number, name in enumerate(_core.activations())}  # as the kernels count them

for _name, _handler in _core.xla_handlers().items():
    jax.ffi.register_ffi_target(f"tilefuse_{_name}", _handler, platform="cpu")


def launch(
    kernel: str,
    inputs: Mapping[str, Array | None],
    outputs: Mapping[str, Shape],
    fields: Mapping[str, float],
    aliases: Mapping[str, str] | None = None,
) -> tuple[Array, ...]:
    """Run a kernel and return its outputs; names are those of its arguments in C.

    Inputs that are None are left out. An alias is an output that begins as an input, under another name.
    """
    given = {name: array for name, array in inputs.items() if array is not None}
    same = aliases or {}
    numbers: dict[str, Any] = {name: i for i, name in enumerate((*given, *outputs)) if name not in same}
    attributes = {
        name: np.float64(value) if isinstance(value, float) else np.int64(value)
        for name, value in (numbers | dict(fields)).items()
    }
    places = {list(given).index(old): list(outputs).index(new) for new, old in same.items()}
    call = jax.ffi.ffi_call(
        f"tilefuse_{kernel}",
        tuple(outputs.values()),
        vmap_method="sequential",
        input_output_aliases=places,
    )
    return tuple(call(*given.values(), **attributes))


def over_rows(function: Callable[..., Any], rows: Sequence[bool]) -> Callable[..., Any]:
    """Let `vmap` make one call of `function`, whose arguments where `rows` says so take any leading axes.

    Its results must have these axes, too. Where vmap maps another argument, it is called once for each.
    """
    call = custom_vmap(function)

    @call.def_vmap
    def batched(size: int, mapped: list[bool], *arrays: Array) -> tuple[Any, Any]:
        if any(m and not r for m, r in zip(mapped, rows, strict=True)):
            result = one_by_one(call, mapped, arrays)
        else:
            result = call(
                *(
                    jnp.broadcast_to(a, (size, *a.shape)) if r and not m else a
                    for a, m, r in zip(arrays, mapped, rows, strict=True)
                )
            )
        return result, jax.tree.map(lambda _: True, result)

    return call


def one_by_one(call: Callable[..., Any], mapped: Sequence[bool], arrays: Sequence[Array]) -> Any:
    """`call` for each index of the leading axes of those arrays that are mapped."""

    def run(parts: list[Array]) -> Any:
        rest = iter(parts)
        return call(*(next(rest) if m else a for a, m in zip(arrays, mapped, strict=True)))

    return jax.lax.map(run, [a for a, m in zip(arrays, mapped, strict=True) if m])


def floats(x: Any, name: str, like: Array | None = None) -> Array:
    """`x` as an array of float32 or float64; of the dtype of `like`, if given."""
    array = jnp.asarray(x)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float32 or float64: convert it with .astype"
        )
    if like is not None and array.dtype != like.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected {like.dtype}, the dtype of the first array"
        )
    return array


def check_shape(x: Array, name: str, shape: tuple[int, ...], of: str) -> None:
    if x.shape != shape:
        raise ValueError(f"{name} has shape {x.shape}; expected {shape}, the shape of {of}")


def like(x: Array) -> Shape:
    return Shape(x.shape, x.dtype)


def dtype_of(x: Array) -> int:
    return int(x.dtype == np.float64)


def by_elements(x: Array) -> dict[str, float]:
    """The fields of a kernel that works element by element."""
    return {"dtype": dtype_of(x), "rows": x.size, "cols": 1}


def by_rows(x: Array) -> dict[str, float]:
    """The fields of a kernel that takes the last axis as columns, and all others as rows."""
    return {"dtype": dtype_of(x), "rows": math.prod(x.shape[:-1]), "cols": x.shape[-1]}


def activation_fields(name: str, alpha: float) -> dict[str, float]:
    return {"epilogue.activation": ACTIVATIONS[name], "epilogue.activation_alpha": float(alpha)}
