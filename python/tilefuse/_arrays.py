"""What `fit`, `predict` and layers accept as data, and what they say when they don't.

Every array in the CPU's memory goes in. Data of another dtype or layout than the model's are copied once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._host_arrays import on_host
from .losses import class_ids


def as_array(x: Any, what: str) -> np.ndarray:
    """Return `x` as an array, without a copy where it has an array interface or speaks DLPack.

    Raises
    ------
    TypeError
        NumPy cannot view it.
    """
    try:
        return on_host(x)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{what} must be an array that NumPy can view, or nested lists of equal lengths; got a "
            f"{type(x).__name__} ({error}). Move it to the CPU or convert it to a NumPy array."
        ) from error


def as_floats(x: Any, dtype: np.dtype[Any], what: str) -> np.ndarray:
    """Return `x` as a C-contiguous array of `dtype`: as it is, or a converted copy.

    Raises
    ------
    TypeError
        It holds complex numbers, strings or objects.
    """
    array = as_array(x, what)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{what} must hold real numbers (floats, integers or booleans), got dtype {array.dtype}. "
            "Convert it first, for instance with .astype('float32')."
        )
    return np.ascontiguousarray(array, dtype) if array.ndim else array.astype(dtype)


def features(x: Any, dtype: np.dtype[Any], input_shape: tuple[int | None, ...] | None) -> np.ndarray:
    """Return the samples `x` as [n, ...] of `dtype`.

    Raises
    ------
    ValueError
        There are none, or they don't have the model's `input_shape`.
    """
    array = as_floats(x, dtype, "x")
    if array.ndim < 2:
        raise ValueError(
            f"x must have a batch axis and at least one more, [n, ...]; got the shape {array.shape}. "
            "Give a single sample as x[None], and a single feature as x[:, None]."
        )
    if len(array) == 0:
        raise ValueError(f"x is empty: its shape is {array.shape}, and at least one sample is needed.")
    if input_shape is not None and array.shape[1:] != input_shape[1:]:
        expected = "(n, " + ", ".join(map(str, input_shape[1:])) + ")"
        raise ValueError(f"x must have the shape {expected}, as the model was built; got {array.shape}.")
    return array


def labels(y: Any, loss_kind: str, dtype: np.dtype[Any], output_shape: tuple[int | None, ...]) -> np.ndarray:
    """Return `y` as the compiled step takes it: int32 [n, ...] for sparse labels, else like the output.

    Raises
    ------
    TypeError
        They are not numbers.
    ValueError
        The shape does not fit, or a label is NaN, infinite or out of range.
    """
    array = as_array(y, "y")
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"y must hold numbers, got dtype {array.dtype}. Number the classes from 0, for instance with "
            "numpy.unique(y, return_inverse=True)."
        )
    outputs = output_shape[1:]
    if loss_kind == "sparse_categorical_crossentropy":
        return _sparse_labels(array, outputs)
    if array.shape[1:] == outputs[:-1] and outputs[-1] == 1:
        array = array[..., None]
    if array.shape[1:] != outputs:
        expected = "(n, " + ", ".join(map(str, outputs)) + ")"
        hint = (
            " Integer labels go with loss='sparse_categorical_crossentropy', or through "
            "tilefuse.utils.to_categorical."
            if loss_kind == "categorical_crossentropy"
            else ""
        )
        raise ValueError(
            f"y must have the shape {expected} of the model's output for {loss_kind}; got "
            f"{array.shape}.{hint}"
        )
    _check_finite(array)
    if loss_kind != "mean_squared_error" and array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"Labels for {loss_kind} must be between 0 and 1, got {array.min()} to {array.max()}. "
            "Rescale them, or use loss='mean_squared_error'."
        )
    return np.ascontiguousarray(array, dtype)


def sample_weights(sample_weight: Any, samples: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the weights of the samples as [n].

    Raises
    ------
    ValueError
        The length does not fit, or a weight is NaN, infinite or negative.
    """
    array = as_floats(sample_weight, dtype, "sample_weight")
    if array.shape not in ((samples,), (samples, 1)):
        raise ValueError(
            f"sample_weight must have the shape ({samples},), one weight a sample; got {array.shape}."
        )
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("sample_weight must hold finite numbers of at least 0.")
    return array.reshape(-1)


def class_weights(class_weight: Mapping[int, float], y: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the weight of each sample's class as [n]; a class without an entry has weight 1.

    Raises
    ------
    ValueError
        A sample has several labels, or a class or weight makes no sense.
    """
    flat = y.reshape(len(y), -1)
    if y.dtype.kind == "i" and flat.shape[1] > 1:
        raise ValueError(f"class_weight needs one label a sample, got labels of shape {y.shape}.")
    classes = flat.argmax(axis=-1) if flat.shape[1] > 1 else flat[:, 0].astype(np.int64)
    table = np.ones(max(int(classes.max()), *class_weight) + 1, dtype)
    for label, weight in class_weight.items():
        if label < 0 or not 0 <= weight < np.inf:
            raise ValueError(
                "class_weight must map class numbers to finite weights of at least 0, got "
                f"{label!r}: {weight!r}."
            )
        table[label] = weight
    return table[classes]


def same_length(x: np.ndarray, y: np.ndarray) -> None:
    """Check that there is one label for each sample.

    Raises
    ------
    ValueError
        There is not.
    """
    if len(x) != len(y):
        raise ValueError(
            f"x and y must have the same length; x has {len(x)} samples and y has {len(y)} labels."
        )


def _sparse_labels(array: np.ndarray, outputs: tuple[int | None, ...]) -> np.ndarray:
    if array.ndim > 1 and array.shape[1:] == (*outputs[:-1], 1):
        array = array[..., 0]
    if array.shape[1:] != outputs[:-1]:
        one_hot = array.shape[1:] == outputs
        hint = " One-hot labels go with loss='categorical_crossentropy'." if one_hot else ""
        expected = ", ".join(["n", *map(str, outputs[:-1])])
        raise ValueError(
            f"y must have the shape ({expected}) of integer labels for sparse_categorical_crossentropy; "
            f"got {array.shape}.{hint}"
        )
    assert outputs[-1] is not None
    return class_ids(array, outputs[-1], "y")


def _check_finite(array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"y{list(where)} is {array[where]}: labels must be finite. Remove these samples or fill in "
            "what is missing."
        )
