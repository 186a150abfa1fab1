"""Models as ONNX files, for runtimes that know nothing of tilefuse.

Convolutions and pooling take images [batch, height, width, channels] here, and [batch, channels, height,
width] in ONNX. The graph knows in which of the two layouts each of its values exists, and transposes one only
where an operator needs the other: mostly once, at the input. Where a flattened image goes into a dense layer,
the layer's weights are permuted instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._graph import INPUT
from ..saving import check_built, write_file
from ._layout import Image, channels_first

if TYPE_CHECKING:
    from ..models import Model

#: The version of the operators: the first with LayerNormalization. ONNX 1.12 and all later ones have it.
OPSET = 17
_IR_VERSION = 8  # ONNX 1.12's

_FIRST, _LAST = "channels first", "channels last"
_LARGEST = 2**31 - 2**20  # bytes of weights; a file of protobuf ends at 2 GiB


def export(model: Model, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write what a model computes without training to an ONNX file; the same as `Model.export`.

    The input is called "input" and the output "output"; their shapes are the model's, and the batch may have
    any length. The file appears complete or not at all.

    Parameters
    ----------
    model : Model
    filepath : str or path
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ImportError
        onnx is not installed.
    OSError
        The file cannot be written; an older one is left as it was.
    FileExistsError
        It exists, and `overwrite` is False.
    TypeError, ValueError
        As for `to_onnx`.

    Examples
    --------
    >>> import tilefuse
    >>> from tilefuse.interop import onnx
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2, "softmax")])
    >>> onnx.export(model, "model.onnx")

    In another program, with ``pip install onnxruntime``::

        session = onnxruntime.InferenceSession("model.onnx")
        (probabilities,) = session.run(None, {"input": x})
    """
    write_file(filepath, to_onnx(model).SerializeToString(), overwrite)


def to_onnx(model: Model) -> Any:
    """Return what a model computes without training as an ``onnx.ModelProto``, of operators of `OPSET`.

    Parameters
    ----------
    model : Model
        Weights, input and output keep their dtype; not every runtime has all operators in float64.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        onnx is not installed.
    TypeError
        `model` is none, or has a layer that cannot be exported.
    ValueError
        It is not built, or larger than the 2 GiB that a file may have.

    Examples
    --------
    >>> import tilefuse
    >>> from tilefuse.interop import onnx
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(2, "relu")])
    >>> [node.op_type for node in onnx.to_onnx(model).graph.node]
    ['Gemm', 'Relu']
    """
    from .. import __version__
    from ..models import Model

    helper = _helper()
    if not isinstance(model, Model):
        raise TypeError(f"to_onnx takes a tilefuse.Model, got {model!r} of type {type(model).__name__}.")
    check_built(model)
    size = sum(w.value.nbytes for w in model.weights)
    if size > _LARGEST:
        raise ValueError(f"This model has {size / 2**30:.1f} GiB of weights; an ONNX file holds less than 2.")
    graph = _Graph(model.dtype)
    output = _convert(graph, model)
    graph.name_output(output)
    kind = helper.np_dtype_to_tensor_dtype(model.dtype)
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", *symbol.shape[1:]])
        for name, symbol in (("input", model.input), ("output", model.output))
    ]
    return helper.make_model(
        helper.make_graph(graph.nodes, model.name, ends[:1], ends[1:], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="tilefuse",
        producer_version=__version__,
    )


def _helper() -> Any:
    try:
        from onnx import helper
    except ImportError as error:
        raise ImportError('ONNX files need onnx: pip install "tilefuse[onnx]"') from error
    return helper


def _convert(graph: _Graph, model: Model) -> str:
    """Put all layers into the graph, and return the name of what the last one gives."""
    start = _Value(tuple(int(n or 0) for n in model.input.shape[1:]), {_LAST: "input"})
    values: list[_Value] = []
    for layer, feeds in zip(model._layers, model._feeds, strict=True):
        sources = [start if feed == INPUT else values[feed] for feed in feeds]
        lowered = layer.lower(lambda variable: [])
        convert = _KINDS.get(lowered["kind"])
        if convert is None:
            raise TypeError(f"Layer {layer.name!r} ({type(layer).__name__}) cannot be exported to ONNX.")
        graph.layer = layer.name
        values.append(convert(graph, lowered, *sources))
    return graph.in_layout(values[-1], _LAST)


@dataclass
class _Value:
    """An array to come: its name in each layout in which it exists.

    `shape` is that of a sample, channels last. `image` is that of the image that was flattened into it: then
    the elements of channels-first are in another order. Other values that are no images are channels-last.
    """

    shape: tuple[int, ...]
    names: dict[str, str]
    image: Image | None = None

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3

    @property
    def layout(self) -> str:
        """Where any layout will do: one in which it exists."""
        return _FIRST if _FIRST in self.names else _LAST

    def of_same_shape(self, name: str, layout: str) -> _Value:
        return _Value(self.shape, {layout: name}, self.image)

    def rows(self, array: np.ndarray, layout: str) -> np.ndarray:
        """Return weights, with the elements of a sample along their first axis, in the order of a layout."""
        return channels_first(array, self.image) if self.image and layout == _FIRST else array


class _Graph:
    """Nodes and weights of the graph so far."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.layer = ""  # the one that is being converted
        self._names: set[str] = set()

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node, and return the name of its output."""
        name = self._unique(operator)
        self.nodes.append(_helper().make_node(operator, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, value: np.ndarray) -> str:
        """Store a layer's array, and return its name."""
        from onnx import numpy_helper

        name = self._unique(name)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        return self.array(name, value.astype(self.dtype, copy=False))

    def number(self, name: str, value: float) -> str:
        return self.array(name, np.asarray(value, self.dtype))

    def _unique(self, name: str) -> str:
        plain = unique = f"{self.layer}/{name}"
        number = 1
        while unique in self._names:
            unique, number = f"{plain}_{number}", number + 1
        self._names.add(unique)
        return unique

    def in_layout(self, value: _Value, layout: str) -> str:
        """Return the name of a value in a layout, and transpose it where it is not there yet."""
        if layout not in value.names:
            value.names[layout] = self._transposed(value, layout)
        return value.names[layout]

    def _transposed(self, value: _Value, layout: str) -> str:
        order = (0, 3, 1, 2) if layout == _FIRST else (0, 2, 3, 1)
        name = value.names[value.layout]
        if value.image is None:
            return self.node("Transpose", name, perm=order)
        height, width, channels = value.image
        image = self.reshaped(name, (channels, height, width), "image_shape")
        return self.reshaped(self.node("Transpose", image, perm=order), value.shape, "flat_shape")

    def reshaped(self, name: str, shape: tuple[int, ...], what: str = "shape") -> str:
        """Give the samples another shape; the 0 stands for the batch as it is."""
        return self.node("Reshape", name, self.array(what, np.array([0, *shape], np.int64)))

    def name_output(self, name: str) -> None:
        """Make `name` the output of the graph."""
        if name == "input":
            self.node("Identity", name)
            name = self.nodes[-1].output[0]
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = ["output" if each == name else each for each in names]


Lowered = Mapping[str, Any]


def _dense(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    layout = _LAST if x.is_image else x.layout
    kernel = graph.weight("kernel", x.rows(layer["kernel"], layout))
    bias = [] if layer["bias"] is None else [graph.weight("bias", layer["bias"])]
    name = graph.in_layout(x, layout)
    if bias and len(x.shape) == 1:
        name = graph.node("Gemm", name, kernel, *bias)
    else:
        name = graph.node("MatMul", name, kernel)
        name = graph.node("Add", name, *bias) if bias else name
    return _activation(graph, layer, _Value((*x.shape[:-1], layer["kernel"].shape[1]), {_LAST: name}))


def _convolution(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    kernel = layer["kernel"]
    inputs = [graph.in_layout(x, _FIRST), graph.weight("kernel", kernel.transpose(3, 2, 0, 1))]
    if layer["bias"] is not None:
        inputs.append(graph.weight("bias", layer["bias"]))
    placed, out = _placed(layer, kernel.shape[:2], x)
    name = graph.node("Conv", *inputs, dilations=layer["geometry"][4:6], group=layer["geometry"][8], **placed)
    return _activation(graph, layer, _Value((*out, kernel.shape[3]), {_FIRST: name}))


def _pooling(operator: str) -> Callable[[_Graph, Lowered, _Value], _Value]:
    def convert(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
        name, window = graph.in_layout(x, _FIRST), tuple(layer["window"])
        whole = window == x.shape[:2] and tuple(layer["geometry"][6:8]) == (0, 0)
        if whole and tuple(layer["geometry"][:2]) == (1, 1):
            shape = layer.get("shape", (1, 1, x.shape[2]))
            name = graph.node(f"Global{operator}", name)
            if len(shape) == 1:
                return _Value(shape, {_LAST: graph.node("Flatten", name, axis=1)})
            return _Value(shape, {_FIRST: name})
        placed, out = _placed(layer, window, x)
        return _Value((*out, x.shape[2]), {_FIRST: graph.node(operator, name, **placed)})

    return convert


def _placed(layer: Lowered, window: tuple[int, int], x: _Value) -> tuple[dict[str, Any], tuple[int, int]]:
    """Return the attributes that say where windows lie, and the size of the output.

    tilefuse knows the padding before the image and the size of the output; what follows the image is as much
    as the last window needs.
    """
    out, strides, dilation, before = (layer["geometry"][i : i + 2] for i in (0, 2, 4, 6))
    after = [
        max(0, (n - 1) * s + (k - 1) * d + 1 - size - pad)
        for n, s, k, d, size, pad in zip(out, strides, window, dilation, x.shape[:2], before, strict=True)
    ]
    return {"kernel_shape": window, "strides": strides, "pads": (*before, *after)}, tuple(out)


def _batch_norm(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    channels = x.shape[-1]
    gamma, beta = _gamma_and_beta(layer, channels)
    mean, variance = layer["moving_mean"], layer["moving_variance"]
    if x.is_image or len(x.shape) == 1:
        layout = _FIRST if x.is_image else x.layout
        weights = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
        names = [graph.weight(name, x.rows(array, layout)) for name, array in weights.items()]
        name = graph.in_layout(x, layout)
        name = graph.node("BatchNormalization", name, *names, epsilon=layer["epsilon"])
        return x.of_same_shape(name, layout)
    # ONNX has the channels on the second axis, so this is a factor and a shift for each.
    factor = gamma / np.sqrt(variance.astype(np.float64) + layer["epsilon"])
    name = graph.node("Mul", graph.in_layout(x, _LAST), graph.weight("factor", factor))
    name = graph.node("Add", name, graph.weight("shift", beta - mean * factor))
    return x.of_same_shape(name, _LAST)


def _layer_norm(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    layout = _LAST if x.is_image else x.layout
    gamma, beta = _gamma_and_beta(layer, x.shape[-1])
    inputs = [graph.in_layout(x, layout), graph.weight("gamma", x.rows(gamma, layout))]
    if layer["beta"] is not None:
        inputs.append(graph.weight("beta", x.rows(beta, layout)))
    name = graph.node("LayerNormalization", *inputs, axis=-1, epsilon=layer["epsilon"])
    return x.of_same_shape(name, layout)


def _rms_norm(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    layout = _LAST if x.is_image else x.layout
    name = graph.in_layout(x, layout)
    square = graph.node("ReduceMean", graph.node("Mul", name, name), axes=[-1], keepdims=1)
    shifted = graph.node("Add", square, graph.number("epsilon", layer["epsilon"]))
    name = graph.node("Div", name, graph.node("Sqrt", shifted))
    gamma = graph.weight("scale", x.rows(_gamma_and_beta(layer, x.shape[-1])[0], layout))
    return x.of_same_shape(graph.node("Mul", name, gamma), layout)


def _gamma_and_beta(layer: Lowered, channels: int) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta = layer["gamma"], layer["beta"]
    return np.ones(channels) if gamma is None else gamma, np.zeros(channels) if beta is None else beta


def _reshape(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    shape = tuple(int(n) for n in layer["shape"])
    if shape == x.shape:
        return x
    if len(shape) > 1:
        return _Value(shape, {_LAST: graph.reshaped(graph.in_layout(x, _LAST), shape)})
    layout = _LAST if _LAST in x.names else _FIRST
    name = graph.node("Flatten", x.names[layout], axis=1)
    if layout == _LAST or x.shape[2] == 1 or x.shape[:2] == (1, 1):  # in the order of channels-last
        return _Value(shape, {_LAST: name})
    height, width, channels = x.shape
    return _Value(shape, {_FIRST: name}, (height, width, channels))


def _activation(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    activation, layout = layer["activation"], x.layout
    if activation == "linear":
        return x
    name = graph.in_layout(x, layout)
    if activation in _OPERATORS:
        operator, has_alpha = _OPERATORS[activation]
        attributes = {"alpha": float(layer["alpha"])} if has_alpha else {}
        return x.of_same_shape(graph.node(operator, name, **attributes), layout)
    if activation in _SOFTMAX:
        axis = 1 if x.is_image and layout == _FIRST else -1
        return x.of_same_shape(graph.node(_SOFTMAX[activation], name, axis=axis), layout)
    return x.of_same_shape(_COMPOSED[activation](graph, name), layout)


def _silu(graph: _Graph, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _gelu(graph: _Graph, x: str) -> str:
    """``x (1 + erf(x / sqrt(2))) / 2``."""
    scaled = graph.node("Div", x, graph.number("sqrt_2", math.sqrt(2)))
    return _gated(graph, x, graph.node("Erf", scaled))


def _gelu_tanh(graph: _Graph, x: str) -> str:
    """``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``. Hendrycks and Gimpel, 2016."""
    cube = graph.node("Mul", graph.node("Mul", x, x), x)
    bent = graph.node("Add", x, graph.node("Mul", cube, graph.number("cubic", 0.044715)))
    scaled = graph.node("Mul", bent, graph.number("sqrt_2_over_pi", math.sqrt(2 / math.pi)))
    return _gated(graph, x, graph.node("Tanh", scaled))


def _gated(graph: _Graph, x: str, gate: str) -> str:
    share = graph.node("Add", gate, graph.number("one", 1.0))
    return graph.node("Mul", graph.node("Mul", x, share), graph.number("half", 0.5))


def _dropout(graph: _Graph, layer: Lowered, x: _Value) -> _Value:
    return x


def _add(graph: _Graph, layer: Lowered, *sources: _Value) -> _Value:
    if len(sources) == 1:
        return sources[0]
    common = [layout for layout in (_FIRST, _LAST) if all(layout in x.names for x in sources)]
    if len({x.image for x in sources}) > 1:  # flattened in several orders
        common = []
    layout = common[0] if common else _FIRST if sources[0].is_image else _LAST
    names = [graph.in_layout(x, layout) for x in sources]
    return sources[0].of_same_shape(graph.node("Add" if len(names) == 2 else "Sum", *names), layout)


#: Operators of ONNX that are one activation, and whether its parameter goes with them.
_OPERATORS = {
    "relu": ("Relu", False),
    "leaky_relu": ("LeakyRelu", True),
    "elu": ("Elu", True),
    "selu": ("Selu", False),
    "sigmoid": ("Sigmoid", False),
    "tanh": ("Tanh", False),
    "softplus": ("Softplus", False),
}
_SOFTMAX = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
_COMPOSED = {"silu": _silu, "gelu": _gelu, "gelu_tanh": _gelu_tanh}

#: By a layer's kind in the compiled step.
_KINDS: dict[str, Callable[..., _Value]] = {
    "activation": _activation,
    "add": _add,
    "avg_pool2d": _pooling("AveragePool"),
    "batch_norm": _batch_norm,
    "conv2d": _convolution,
    "dense": _dense,
    "dropout": _dropout,
    "layer_norm": _layer_norm,
    "max_pool2d": _pooling("MaxPool"),
    "reshape": _reshape,
    "rms_norm": _rms_norm,
}
