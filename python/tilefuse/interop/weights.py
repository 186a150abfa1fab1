"""Weights from and to PyTorch's modules of the same architecture.

Layers with weights are matched with modules with parameters in their order, or by `names`. What differs:

==========================================  ==========================================================
tilefuse                                    PyTorch
==========================================  ==========================================================
images [batch, height, width, channels]     [batch, channels, height, width]
``Dense``: kernel [inputs, units]           ``Linear``: weight [units, inputs]
... after the ``Flatten`` of an image       inputs in the order of [channels, height, width]
``Conv2D``: kernel [h, w, inputs, filters]  ``Conv2d``: weight [filters, inputs, h, w]
``DepthwiseConv2D``: kernel [h, w, c, m]    ``Conv2d`` of c groups: weight [c * m, 1, h, w]
``BatchNormalization``: epsilon 1e-3        ``BatchNorm2d``: eps 1e-5
... momentum: the old average's share       momentum: the batch's share, 1 - that
... variance of a batch over n              over n, but over n - 1 for running_var
==========================================  ==========================================================

What a `Reshape` makes is taken to be the same in both: where it gives images, through
``x.view(n, h, w, c).permute(0, 3, 1, 2)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._graph import INPUT
from ..layers import BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Layer
from ..saving import check_built
from ..variables import Variable
from ._layout import Image, channels_first, channels_last

if TYPE_CHECKING:
    from ..models import Model

#: What PyTorch calls a layer's weights.
_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_torch(model: Model, source: Any, names: Mapping[str, str] | None = None) -> None:
    """Copy the weights of a PyTorch module into a model of the same architecture.

    A batch normalisation's moving averages are copied, too. The state of an optimizer stays as it was.

    Parameters
    ----------
    model : Model
        Built: weights exist.
    source : torch.nn.Module, or mapping of str to tensor or array
        A mapping is a state dict: of `Module.state_dict`, ``torch.load`` or ``safetensors``. Of a module the
        settings are compared as well: epsilon, and a convolution's strides, dilation and padding.
    names : mapping of str to str, optional
        Names of layers, and those of the modules that they take their weights from. The other layers take
        them from the other modules, in order; so it is needed where the order differs.

    Raises
    ------
    TypeError
        `source` is something else.
    ValueError
        Something does not match: the message says which layer, what was given and what was expected. Then
        nothing is changed.

    Warns
    -----
    UserWarning
        Moving averages move at another rate: predictions are the same, but further training is not.

    Examples
    --------
    >>> import tilefuse, torch
    >>> from tilefuse.layers import Conv2D, Dense, Flatten
    >>> from tilefuse.interop.weights import load_torch
    >>> module = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    ... )
    >>> layers = [Conv2D(8, 3, activation="relu"), Flatten(), Dense(10)]
    >>> model = tilefuse.Sequential([tilefuse.Input((8, 8, 3)), *layers])
    >>> load_torch(model, module)
    >>> x = torch.rand(2, 3, 8, 8)
    >>> bool(abs(model.predict(x.movedim(1, 3)) - module(x).detach().numpy()).max() < 1e-5)
    True
    """
    found = []
    for pair in _matched(model, source, names):
        value = _array(pair.tensor).transpose(np.argsort(pair.axes)).reshape(pair.variable.shape)
        found.append((pair.variable, channels_last(value, pair.image) if pair.image else value))
    for variable, value in found:
        variable.assign(value)


def to_torch(model: Model, target: Any, names: Mapping[str, str] | None = None) -> None:
    """Copy a model's weights into a PyTorch module of the same architecture: the inverse of `load_torch`.

    Parameters
    ----------
    model : Model
        Built: weights exist.
    target : torch.nn.Module, or mapping of str to tensor
        Its tensors are written to in place, and keep dtype and device.
    names : mapping of str to str, optional
        As for `load_torch`.

    Raises
    ------
    TypeError, ValueError
        As for `load_torch`.

    Examples
    --------
    >>> import tilefuse, torch
    >>> from tilefuse.interop.weights import to_torch
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2)])
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> to_torch(model, module)
    >>> bool((module[0].weight.detach().numpy() == model.layers[0].kernel.numpy().T).all())
    True
    """
    for pair in _matched(model, target, names):
        pair.tensor.copy_(pair.tensor.new_tensor(np.ascontiguousarray(pair.in_torch())))


@dataclass
class _Pair:
    """A weight, and the tensor that belongs to it."""

    variable: Variable
    tensor: Any
    shape: tuple[int, ...]  # of `variable`, before its axes are permuted
    axes: tuple[int, ...]
    image: Image | None  # whose elements go along the first axis

    def in_torch(self) -> np.ndarray:
        """Return the weight as PyTorch has it; a view where that can be."""
        value = self.variable.value
        value = channels_first(value, self.image) if self.image else value
        return value.reshape(self.shape).transpose(self.axes)


@dataclass
class _Module:
    """Tensors by name, and the module that they are of where that is known."""

    name: str
    tensors: dict[str, Any]
    module: Any = None

    def __str__(self) -> str:
        kind = f" ({type(self.module).__name__})" if self.module is not None else ""
        return f"module {self.name!r}{kind}"


def _matched(model: Model, source: Any, names: Mapping[str, str] | None) -> list[_Pair]:
    """Return all pairs of weights and tensors, or raise what `load_torch` says."""
    check_built(model)
    images = dict(zip(map(id, model.layers), _flattened_images(model), strict=True))
    matches = _in_order([layer for layer in model.layers if layer.weights], _modules(source), names or {})
    pairs = []
    for layer, module in matches:
        _check_names(layer, module)
        if module.module is not None:
            _check_settings(layer, module)
        pairs += [_pair(layer, variable, module, images[id(layer)]) for variable in layer.weights]
    return pairs


def _modules(source: Any) -> dict[str, _Module]:
    """Return the modules that have tensors, in order."""
    state = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(state, Mapping):
        raise TypeError(
            f"Weights come from a torch.nn.Module or its state dict, got a {type(source).__name__}."
        )
    modules = dict(source.named_modules()) if hasattr(source, "named_modules") else {}
    found: dict[str, _Module] = {}
    for key, tensor in state.items():
        name, _, tensor_name = key.rpartition(".")
        if tensor_name != "num_batches_tracked":
            module = found.setdefault(name, _Module(name, {}, modules.get(name)))
            module.tensors[tensor_name] = tensor
    return found


def _in_order(
    layers: list[Layer], modules: dict[str, _Module], names: Mapping[str, str]
) -> list[tuple[Layer, _Module]]:
    for given, known, what in (
        (names, [layer.name for layer in layers], "layer with weights"),
        (names.values(), list(modules), "module with tensors"),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"names has {unknown[0]!r}, but there is no such {what}: {', '.join(known)}.")
    if len(set(names.values())) < len(names):
        raise ValueError(f"names gives a module to more than one layer: {dict(names)}.")
    others = [module for name, module in modules.items() if name not in set(names.values())]
    if len(layers) - len(names) != len(others):
        raise ValueError(
            f"The model has {len(layers)} layers with weights ({', '.join(layer.name for layer in layers)}), "
            f"but there are {len(modules)} modules with tensors ({', '.join(modules)}). Each layer needs one."
        )
    rest = iter(others)
    return [(layer, modules[names[layer.name]] if layer.name in names else next(rest)) for layer in layers]


def _check_names(layer: Layer, module: _Module) -> None:
    expected = {_NAMES.get(variable.name, variable.name) for variable in layer.weights}
    if set(module.tensors) != expected:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) needs {', '.join(sorted(expected))}, but "
            f"{module} has {', '.join(sorted(module.tensors))}. Where modules are in another order than "
            "layers, pass names={layer: module}."
        )


def _check_settings(layer: Layer, module: _Module) -> None:
    """Compare what changes results, though all shapes are equal."""
    if hasattr(layer, "epsilon") and hasattr(module.module, "eps"):
        eps = module.module.eps  # None stands for that of the dtype
        eps = float(np.finfo(layer.dtype).eps) if eps is None else float(eps)
        if not np.isclose(eps, layer.epsilon, rtol=1e-6, atol=0):
            raise ValueError(
                f"Layer {layer.name!r} has epsilon={layer.epsilon}, but {module} has eps={eps}. Make the "
                f"layer with epsilon={eps}."
            )
    if isinstance(layer, BatchNormalization) and getattr(module.module, "momentum", None) is not None:
        momentum = 1 - module.module.momentum
        if not np.isclose(momentum, layer.momentum):
            warnings.warn(
                f"Layer {layer.name!r} has momentum={layer.momentum}, but {module} has "
                f"{module.module.momentum}, which is {momentum:.6g} here: training would go on differently.",
                stacklevel=4,
            )
    if isinstance(layer, (Conv2D, DepthwiseConv2D)) and hasattr(module.module, "dilation"):
        _check_windows(layer, module)


def _check_windows(layer: Conv2D | DepthwiseConv2D, module: _Module) -> None:
    assert layer.input_shape is not None
    height, width = (int(n or 0) for n in layer.input_shape[1:3])
    theirs, given = module.module, []
    for axis, size in enumerate((height, width)):
        stride, dilation = theirs.stride[axis], theirs.dilation[axis]
        reach = (theirs.kernel_size[axis] - 1) * dilation + 1
        if isinstance(theirs.padding, str):
            total = reach - 1 if theirs.padding == "same" else 0
            before = total // 2
        else:
            before = theirs.padding[axis]
            total = 2 * before
        given.append(((size + total - reach) // stride + 1, stride, dilation, before))
    geometry = layer.lower(lambda variable: [])["geometry"]
    wanted = [tuple(geometry[axis:8:2]) for axis in (0, 1)]
    if given != wanted or theirs.padding_mode != "zeros":
        raise ValueError(
            f"Layer {layer.name!r} has strides={layer.strides}, padding={layer.padding!r} and "
            f"dilation_rate={layer.dilation_rate}, but {module} has stride={theirs.stride}, "
            f"padding={theirs.padding!r} ({theirs.padding_mode}) and dilation={theirs.dilation}: on images "
            f"of {height} x {width} their windows lie elsewhere. A layer takes PyTorch's padding=1 as it is."
        )


def _pair(layer: Layer, variable: Variable, module: _Module, image: Image | None) -> _Pair:
    shape, axes = variable.shape, tuple(range(variable.ndim))
    if isinstance(layer, Dense):
        image = image if variable.name == "kernel" else None
        axes = axes[::-1]
    elif isinstance(layer, (Conv2D, DepthwiseConv2D)) and variable.name == "kernel":
        assert layer.output_shape is not None
        filters = int(layer.output_shape[-1] or 0)
        shape, axes = (*shape[:2], variable.size // (shape[0] * shape[1] * filters), filters), (3, 2, 0, 1)
    tensor = module.tensors[_NAMES[variable.name]]
    expected = tuple(shape[axis] for axis in axes)
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"Layer {layer.name!r}: its {variable.name} of shape {variable.shape} needs a "
            f"{_NAMES[variable.name]} of shape {expected}, but {module} has {tuple(tensor.shape)}. Where "
            "modules are in another order than layers, pass names={layer: module}."
        )
    return _Pair(variable, tensor, shape, axes, image)


def _flattened_images(model: Model) -> list[Image | None]:
    """Return for each layer the image that was flattened into its input; None where there was none."""
    of_input: list[Image | None] = []
    of_output: list[Image | None] = []
    for layer, feeds in zip(model._layers, model._feeds, strict=True):
        images = {None if feed == INPUT else of_output[feed] for feed in feeds}
        if len(images) > 1:
            raise ValueError(
                f"Layer {layer.name!r} takes a flattened image and something else; PyTorch's order of their "
                "elements is not known."
            )
        image = images.pop()
        of_input.append(image)
        before, after = layer.input_shape, layer.output_shape
        assert before is not None
        assert after is not None
        if len(before) == 4 and len(after) == 2:
            height, width, channels = (int(n or 0) for n in before[1:])
            image = (height, width, channels) if height * width * channels == after[1] else None
        elif isinstance(layer, Dense) or before != after:
            image = None
        of_output.append(image)
    return of_input


def _array(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = tensor if tensor.element_size() == 8 else tensor.float()  # NumPy has no bfloat16
    return np.asarray(tensor)
