"""Small things that prepare data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def to_categorical(x: npt.ArrayLike, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as one-hot rows.

    Parameters
    ----------
    x : array of integers [...] or [..., 1]
        The classes, from 0 on. A last axis of length 1 is dropped, as in Keras.
    num_classes : int, optional
        By default one more than the largest class in `x`.

    Returns
    -------
    one_hot : float32 array [..., num_classes]
        float32, as training wants it, where Keras gives float64.

    Raises
    ------
    TypeError
        If `x` does not hold integers.
    ValueError
        If a class is negative or not below `num_classes`.

    Examples
    --------
    >>> to_categorical([0, 2, 1], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """
    classes = np.asarray(x)
    kind = classes.dtype.kind
    if not (kind in "iub" or (kind == "f" and np.all(classes == np.floor(classes)))):
        raise TypeError(f"to_categorical takes integer class numbers, got {classes.dtype}; use astype(int)")
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    classes = classes.astype(np.int64)
    if num_classes is None:
        num_classes = int(classes.max(initial=-1)) + 1
    if classes.size and not (classes.min() >= 0 and classes.max() < num_classes):
        raise ValueError(
            f"classes must be in [0, {num_classes}), got {classes.min()} to {classes.max()}; "
            "pass a larger num_classes, or number the classes from 0"
        )
    one_hot = np.zeros((*classes.shape, num_classes), np.float32)
    np.put_along_axis(one_hot, classes[..., None], 1, axis=-1)
    return one_hot


def normalize(x: npt.ArrayLike, axis: int = -1, order: float = 2) -> np.ndarray:
    """Divide by the norm along an axis; where the norm is 0 nothing is changed.

    Parameters
    ----------
    x : array
    axis : int
    order : float
        Which norm: 2 is the Euclidean one.

    Returns
    -------
    normalized : array
        As `x`; float32 where `x` holds integers.

    Examples
    --------
    >>> normalize([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    array = np.asarray(x)
    if array.dtype.kind != "f":
        array = array.astype(np.float32)
    norm = np.atleast_1d(np.linalg.norm(array, order, axis, keepdims=True))
    return array / np.where(norm == 0, norm.dtype.type(1), norm)
