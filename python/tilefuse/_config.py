"""Objects by name and as JSON: what `"adam"`, a saved model and a misspelt name have in common."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar

T = TypeVar("T")

_custom_objects: contextvars.ContextVar[Mapping[str, Any] | None] = contextvars.ContextVar(
    "custom", default=None
)


class Configurable:
    """An object whose attributes are named as its constructor's parameters, and so can be written down."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dict that JSON can hold."""
        return {name: to_config(getattr(self, name)) for name in parameters(type(self))}

    def serialized(self) -> dict[str, Any]:
        """Return what `lookup` makes an equal object from."""
        return {"class_name": type(self).__name__, "config": self.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return a new object made from `get_config`'s dict."""
        return cls(**config)


def parameters(cls: type) -> list[str]:
    """Return the names of the constructor's parameters, without those that collect the rest."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, p in inspect.signature(cls).parameters.items() if p.kind not in collecting]


def to_config(value: Any) -> Any:
    """Return `value` as JSON holds it; a Configurable becomes its class name and its config."""
    if isinstance(value, Configurable):
        return value.serialized()
    if isinstance(value, (list, tuple)):
        return [to_config(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if callable(value):
        return {"class_name": getattr(value, "__name__", type(value).__name__), "config": {}}
    return value


@contextlib.contextmanager
def custom_objects(objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Let `lookup` find `objects` by name inside the block."""
    token = _custom_objects.set(objects)
    try:
        yield
    finally:
        _custom_objects.reset(token)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known name nearest to `name`, or all of them."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(repr(n) for n in names)}."


def snake_case(name: str) -> str:
    """Return a class name as Keras writes it: GlorotUniform as glorot_uniform, Conv2D as conv2d."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def find(what: str, name: str, known: Mapping[str, Any]) -> Any:
    """Return the entry of `known` called `name`, whatever its case and underscores.

    Raises
    ------
    ValueError
        There is none; the message names the nearest.
    """
    custom = _custom_objects.get() or {}
    if name in custom:
        return custom[name]
    plain = name.lower().replace("_", "")
    for key, entry in known.items():
        if key.lower().replace("_", "") == plain:
            return entry
    raise ValueError(f"Unknown {what} {name!r}. {suggestion(name, known)}")


def lookup(what: str, identifier: Any, base: type[T], known: Mapping[str, type[T]]) -> T:
    """Return the object that `identifier` stands for: an instance, a class, a name, or a saved config.

    Raises
    ------
    TypeError
        It is none of these.
    ValueError
        The name is not known.
    """
    if isinstance(identifier, base):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, base):
        return identifier()
    if isinstance(identifier, str):
        return _made(find(what, identifier, known), base, {})
    if isinstance(identifier, Mapping) and "class_name" in identifier:
        return _made(find(what, identifier["class_name"], known), base, identifier.get("config", {}))
    raise TypeError(
        f"Expected the {what} as an instance, a class or a name ({', '.join(map(repr, sorted(known)))}), "
        f"got {identifier!r} of type {type(identifier).__name__}."
    )


def _made(entry: Any, base: type, config: Mapping[str, Any]) -> Any:
    if isinstance(entry, type) and issubclass(entry, base):
        return entry.from_config(config)  # type: ignore[attr-defined]
    return entry
