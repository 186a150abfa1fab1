"""Models from and to Keras 3, with their weights.

Layers have the same names, arguments and weights in both, so that a model is translated by its config. Where
Keras pads with a layer of its own (`ZeroPadding2D`), the layer after it pads here.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import initializers, regularizers
from .. import layers as our_layers
from .._config import find, parameters
from .._graph import INPUT
from ..layers import BatchNormalization, Input, Layer, MaxPooling2D, Symbol
from ..saving import check_built

if TYPE_CHECKING:
    from ..models import Model

Entry = Mapping[str, Any]
Sides = tuple[tuple[int, int], tuple[int, int]]


def from_keras(keras_model: Any) -> Model:
    """Return a model of tilefuse's of the architecture and the weights of a Keras model.

    It is not compiled. A model within the model becomes its layers, called ``<model>_<layer>``. An
    initializer that tilefuse has not becomes the default one: the weights exist already.

    Parameters
    ----------
    keras_model : keras.Sequential or functional keras.Model
        Built, with one input and one output, of layers that tilefuse has, and of ``ReLU``, ``LeakyReLU``,
        ``ELU``, ``Softmax``, ``ZeroPadding2D`` before a convolution, and ``x + y``.

    Returns
    -------
    Sequential or Model

    Raises
    ------
    ImportError
        Keras is not installed.
    TypeError
        `keras_model` is something else.
    ValueError
        It is not built, or a layer or an argument is not there in tilefuse; the message says which.

    Examples
    --------
    >>> import keras
    >>> from tilefuse.interop.keras import from_keras
    >>> model = from_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu")]))
    >>> model.predict([[1.0, 2.0, 3.0, 4.0]]).shape
    (1, 3)
    """
    return _read(keras_model)[0]


def load_keras(model: Model, keras_model: Any) -> None:
    """Copy the weights of a Keras model into a model of the same architecture.

    Layers with weights are matched in their order from input to output, whatever their names.

    Parameters
    ----------
    model : Model
        Built: weights exist.
    keras_model : keras.Sequential or functional keras.Model
        As for `from_keras`.

    Raises
    ------
    ImportError, TypeError, ValueError
        As for `from_keras`.
    ValueError
        A layer's type, a shape, an epsilon or where windows lie differs: the message says what was given and
        what was expected. Then nothing is changed.

    Warns
    -----
    UserWarning
        Moving averages move at another rate: predictions are the same, but further training is not.

    Examples
    --------
    >>> import keras, tilefuse
    >>> from tilefuse.interop.keras import load_keras
    >>> keras_model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(3)])
    >>> load_keras(model, keras_model)
    >>> bool((model.get_weights()[0] == keras_model.get_weights()[0]).all())
    True
    """
    twin, _ = _read(keras_model)
    for layer, theirs in _matched(model, twin):
        layer.set_weights([w.value for w in theirs.weights])


def to_keras(model: Model, keras_model: Any = None) -> Any:
    """Return a Keras model of the architecture and the weights of a model.

    Parameters
    ----------
    model : Model
        Built: weights exist.
    keras_model : keras.Sequential or functional keras.Model, optional
        One of the same architecture that takes the weights; by default a new one is made, not compiled.

    Returns
    -------
    keras.Sequential or keras.Model

    Raises
    ------
    ImportError, TypeError, ValueError
        As for `load_keras`.
    ValueError
        Keras has not what a layer does: pooling with another padding than "valid" and "same", or "gelu_tanh".

    Examples
    --------
    >>> import tilefuse
    >>> from tilefuse.interop.keras import to_keras
    >>> model = tilefuse.Sequential([tilefuse.Input((4,)), tilefuse.layers.Dense(3, "relu")])
    >>> to_keras(model).output_shape
    (None, 3)
    """
    if keras_model is None:
        return _written(model)
    twin, originals = _read(keras_model)
    for layer, theirs in _matched(model, twin):
        originals[theirs.name].set_weights(layer.get_weights())
    return keras_model


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise ImportError("this needs Keras 3: pip install keras, and jax or tensorflow-cpu") from error
    return keras


def _matched(model: Model, twin: Model) -> list[tuple[Layer, Layer]]:
    """Return the pairs of layers with weights, or raise what `load_keras` says."""
    check_built(model)
    own, others = ([layer for layer in each.layers if layer.weights] for each in (model, twin))
    if len(own) != len(others):
        raise ValueError(
            f"The model has {len(own)} layers with weights ({', '.join(layer.name for layer in own)}), but "
            f"the Keras model has {len(others)} ({', '.join(layer.name for layer in others)})."
        )
    pairs = list(zip(own, others, strict=True))
    for layer, theirs in pairs:
        for what, ours, given in _compared(layer, theirs):
            if ours != given:
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) has {what} {ours}, but Keras's layer "
                    f"{theirs.name!r} ({type(theirs).__name__}) has {given}."
                )
        if isinstance(layer, BatchNormalization) and layer.momentum != vars(theirs)["momentum"]:
            warnings.warn(
                f"Layer {layer.name!r} has momentum={layer.momentum}, but Keras's layer {theirs.name!r} has "
                f"{vars(theirs)['momentum']}: training would go on differently.",
                stacklevel=3,
            )
    return pairs


def _compared(*pair: Layer) -> list[tuple[str, Any, Any]]:
    """Return what must be equal, each with a word for it."""
    lowered = [layer.lower(lambda variable: []) for layer in pair]
    compared: dict[str, list[Any]] = {
        "the type": [type(layer).__name__ for layer in pair],
        "weights of the shapes": [{w.name: w.shape for w in layer.weights} for layer in pair],
        "epsilon": [each.get("epsilon") for each in lowered],
        "windows (size of the output, strides, dilation, padding before, groups)": [
            each.get("geometry") for each in lowered
        ],
    }
    return [(what, ours, given) for what, (ours, given) in compared.items()]


# ---- from Keras --------------------------------------------------------------------


@dataclass(frozen=True)
class _Value:
    """A symbol, and zeros around it that are yet to become part of a layer."""

    symbol: Symbol
    zeros: Sides | None = None


def _read(keras_model: Any) -> tuple[Model, dict[str, Any]]:
    """Return the translated model, and the original of each of its layers with weights by name."""
    from ..models import Model, Sequential

    keras = _keras()
    if not isinstance(keras_model, keras.Model):
        raise TypeError(f"Expected a keras.Model, got {keras_model!r} of type {type(keras_model).__name__}.")
    if not keras_model.built:
        raise ValueError(
            f"Keras's model {keras_model.name!r} has no weights yet: give it a keras.Input, or build it."
        )
    shape = keras_model.input_shape
    if not isinstance(shape, tuple) or not isinstance(keras_model.output_shape, tuple):
        raise ValueError(f"Keras's model {keras_model.name!r} has several inputs or outputs; expected one.")
    reader = _Reader()
    inputs = Input(shape[1:])
    end = reader.read(keras_model, _Value(inputs))
    if end.zeros:
        raise ValueError(f"Keras's model {keras_model.name!r} ends with zeros around images.")
    model = Model(inputs, end.symbol, keras_model.name)
    if isinstance(keras_model, keras.Sequential):
        model = Sequential([inputs, *model.layers], name=keras_model.name)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(reader.originals[layer.name].get_weights())
    return model, reader.originals


class _Reader:
    """Applies the layers of Keras models, one after the other."""

    def __init__(self) -> None:
        self.originals: dict[str, Any] = {}

    def read(self, keras_model: Any, x: _Value, prefix: str = "", training: bool | None = None) -> _Value:
        """Return what the model gives for `x`."""
        originals = {layer.name: layer for layer in keras_model.layers}
        config = keras_model.get_config()
        if isinstance(keras_model, _keras().Sequential):
            for entry in config["layers"]:
                if entry["class_name"] != "InputLayer":
                    x = self.apply(entry, originals[entry["config"]["name"]], [x], prefix, training)
            return x
        if "output_layers" not in config:
            raise TypeError(
                f"Keras's model {keras_model.name!r} is a {type(keras_model).__name__}; only Sequential and "
                "functional models, keras.Model(inputs, outputs), can be translated."
            )
        values: dict[str, _Value] = {}
        for entry in config["layers"]:
            name, nodes = entry["config"]["name"], entry["inbound_nodes"]
            if entry["class_name"] == "InputLayer":
                values[name] = x
                continue
            if len(nodes) > 1:
                raise ValueError(f"Keras's layer {name!r} is used {len(nodes)} times; expected once.")
            sources = [values[source] for source in _sources(nodes[0]["args"])]
            at_work = nodes[0]["kwargs"].get("training")
            at_work = training if at_work is None else at_work
            values[name] = self.apply(entry, originals.get(name), sources, prefix, at_work)
        output = config["output_layers"]
        return values[output[0] if isinstance(output[0], str) else output[0][0]]

    def apply(
        self, entry: Entry, original: Any, sources: list[_Value], prefix: str, training: bool | None
    ) -> _Value:
        """Return what a layer gives for `sources`; `training` is what it was called with."""
        kind, config = entry["class_name"], entry["config"]
        name = prefix + config["name"]
        if original is not None and hasattr(original, "layers"):
            return self.read(original, sources[0], f"{name}_", training)
        try:
            if kind == "ZeroPadding2D":
                return _padded(sources[0], config["padding"])
            if original is None and (kind != "Add" or len(sources) != 2):
                raise ValueError("only layers, and the sum of two, can be translated")
            if kind == "Dropout" and training is False:
                return sources[0]
            told = training is not None and kind in ("Dropout", "BatchNormalization")
            if told and (training or config["trainable"]):  # a frozen normalisation never is at work
                raise ValueError(f"it is called with training={training}; expected that fit decides")
            layer = _layer(kind, config, original, sources[0])
            layer.rename(name)
            layer.has_given_name = True
            symbols = [source.symbol for source in sources]
            if len(symbols) > 1 and not isinstance(layer, our_layers.Add):
                raise ValueError(f"it takes {len(symbols)} inputs; expected one")
            self.originals[name] = original
            return _Value(layer.symbol_of(*symbols))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Keras's layer {name!r} ({kind}) cannot be translated: {error}") from error


def _sources(arguments: Any) -> Iterator[str]:
    """Give the names of the layers whose outputs are among a call's arguments."""
    if isinstance(arguments, Mapping) and arguments.get("class_name") == "__keras_tensor__":
        yield arguments["config"]["keras_history"][0]
    elif isinstance(arguments, (list, tuple)):
        for each in arguments:
            yield from _sources(each)


def _padded(x: _Value, sides: Any) -> _Value:
    if x.zeros:
        raise ValueError("there are zeros around these images already")
    (top, bottom), (left, right) = sides
    return replace(x, zeros=((top, bottom), (left, right)))


def _layer(kind: str, config: Mapping[str, Any], original: Any, source: _Value) -> Layer:
    """Return the layer of tilefuse's that a layer of Keras's is."""
    if kind in _ACTIVATIONS:
        activation, expected = _ACTIVATIONS[kind]
        for key, value in expected.items():
            if config.get(key, value) != value:
                raise ValueError(f"{key} is {config[key]!r}; expected {value!r}")
        kind, config = "Activation", {"activation": activation, "trainable": config["trainable"]}
    cls = find("layer", kind, our_layers._CLASSES)
    arguments: dict[str, Any] = {}
    known = {*parameters(cls), "trainable"}
    if config.get("data_format", "channels_last") != "channels_last":
        raise ValueError(f"data_format is {config['data_format']!r}; expected 'channels_last'")
    for key, value in config.items():
        if key in ("dtype", "name", "data_format"):
            continue
        if key in known:
            arguments |= _argument(key, value)
        elif not _is_default(original, key, value):
            raise ValueError(f"{key} is {value!r}, which tilefuse has not")
    if original is not None:
        arguments["dtype"] = original.variable_dtype
    if source.zeros:
        if config.get("padding") != "valid" or not _pads_with_zeros(cls, source.symbol.layer):
            raise ValueError("zeros are around its images; expected a convolution with padding='valid'")
        arguments["padding"] = source.zeros
    layer: Layer = cls(**arguments)
    return layer


def _argument(key: str, value: Any) -> dict[str, Any]:
    """Return an argument as tilefuse's layers take it; none for an initializer that tilefuse has not."""
    if key.endswith("_regularizer") and value is not None:
        return {key: regularizers.get({name: value[name] for name in ("class_name", "config")})}
    if key.endswith("_initializer"):
        try:
            cls = find("initializer", value["class_name"], initializers._CLASSES)
        except ValueError:
            return {}
        return {key: cls(**{k: v for k, v in value["config"].items() if k in parameters(cls)})}
    if key == "activation" and isinstance(value, Mapping):
        raise ValueError(f"activation is {value.get('config')!r}; expected one by name")
    return {key: value}


def _is_default(original: Any, key: str, value: Any) -> bool:
    """Whether an argument that tilefuse has not is as if it were not there."""
    if value is None or value is False:
        return True
    parameter = inspect.signature(type(original).__init__).parameters.get(key)
    return parameter is not None and parameter.default == value


def _pads_with_zeros(cls: type[Layer], before: Layer | None) -> bool:
    """Whether a layer's padding is the same as zeros around what the layer before it gives."""
    # The largest of a window is the same with or without a zero if nothing in it is negative.
    return cls in (our_layers.Conv2D, our_layers.DepthwiseConv2D) or (
        cls is MaxPooling2D and getattr(before, "activation", None) in _NOT_NEGATIVE
    )


_NOT_NEGATIVE = ("relu", "sigmoid", "softplus", "softmax")

#: Layers of Keras's that are activations, and what their arguments must be for that.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "ReLU": ("relu", {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.2}),
    "ELU": ("elu", {"alpha": 1.0}),
    "Softmax": ("softmax", {"axis": -1}),
}


# ---- to Keras ----------------------------------------------------------------------


def _written(model: Model) -> Any:
    """Return a new Keras model."""
    from ..models import Sequential

    keras = _keras()
    check_built(model)
    assert model.input_shape is not None
    inputs = keras.Input(model.input_shape[1:], dtype=str(model.dtype))
    made = [_keras_layers(layer, keras) for layer in model.layers]
    if isinstance(model, Sequential):
        written = keras.Sequential([inputs, *(layer for each in made for layer in each)], name=model.name)
    else:
        values: list[Any] = []
        for each, feeds in zip(made, model._feeds, strict=True):
            sources = [inputs if feed == INPUT else values[feed] for feed in feeds]
            x = sources[0] if len(sources) == 1 else sources
            for layer in each:
                x = layer(x)
            values.append(x)
        written = keras.Model(inputs, values[-1], name=model.name)
    for layer, each in zip(model.layers, made, strict=True):
        if layer.weights:
            each[-1].set_weights(layer.get_weights())
    return written


def _keras_layers(layer: Layer, keras: Any) -> list[Any]:
    """Return the layers of Keras's that do what a layer does; the last has its weights."""
    kind = type(layer).__name__
    config, before = layer.get_config(), []
    if kind == "Add" and len(layer.output.sources) == 1:
        return []
    if config.get("activation") == "gelu_tanh":
        raise ValueError(f"Layer {layer.name!r}: Keras has no activation 'gelu_tanh'; use 'gelu'.")
    if config.get("padding", "valid") not in ("valid", "same"):
        if not _pads_with_zeros(type(layer), layer.output.sources[0].layer):
            raise ValueError(
                f"Layer {layer.name!r} has padding={config['padding']!r}; Keras's pooling takes 'valid' or "
                "'same'."
            )
        padding, config["padding"] = config["padding"], "valid"
        before = [keras.layers.ZeroPadding2D(padding, name=f"{layer.name}_pad", dtype=config["dtype"])]
    cls = getattr(keras.layers, kind, None)
    if cls is None:
        raise ValueError(f"Layer {layer.name!r}: Keras has no layer {kind}.")
    return [*before, cls.from_config(config)]
