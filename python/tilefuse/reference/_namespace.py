"""NumPy or CuPy, whichever the arguments belong to."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray


def get_array_module(*arrays: Any) -> Any:
    """The module ``cupy`` if any argument is a CuPy array, else ``numpy``.

    CuPy is imported only when an argument shows that it is in use already.
    """
    for array in arrays:
        if type(array).__module__.partition(".")[0] == "cupy":
            import cupy  # type: ignore[import-not-found, import-untyped, unused-ignore]

            return cupy
    return np
