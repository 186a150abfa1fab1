"""Models as files: one safetensors file with all arrays, and the rest as JSON in its metadata.

Arrays: ``weights/<layer>/<weight>`` and ``optimizer/<layer>/<weight>/<number of the slot>``. Metadata:
``format``, ``class_name``, ``model`` (architecture), ``compile`` (optimizer, loss, metrics) and ``state``
(counters and seeds).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._config import custom_objects as custom_objects_scope

if TYPE_CHECKING:
    from .models import Model

_FORMAT = "tilefuse-1"
_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"


def save_model(model: Model, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write architecture, weights and the state of the training; see `Model.save`."""
    check_built(model)
    tensors = _weights(model)
    metadata = {
        "class_name": type(model).__name__,
        "model": model.get_config(),
        "state": model.training_state(),
    }
    if model.compiled:
        metadata["compile"] = model.get_compile_config()
        tensors |= {_OPTIMIZER + name: array for name, array in model.optimizer.state().items()}
    _write(filepath, tensors, metadata, overwrite)


def save_weights(model: Model, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights; see `Model.save_weights`."""
    check_built(model)
    _write(filepath, _weights(model), {}, overwrite)


def load_model(
    filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Model:
    """Return the model of a file; see `tilefuse.load_model`."""
    from .models import Model, Sequential

    tensors, metadata = _read(filepath)
    if "model" not in metadata:
        raise ValueError(
            f"{filepath} holds weights without an architecture. Make the model and call "
            "load_weights on it, or save it with save instead of save_weights."
        )
    with custom_objects_scope(custom_objects):
        cls = Sequential if metadata.get("class_name", "Sequential") == "Sequential" else Model
        model: Model = cls.from_config(metadata["model"])
        if compile and "compile" in metadata:
            model.compile_from_config(metadata["compile"])
    _set_weights(model, tensors, filepath)
    model.set_training_state(metadata["state"])
    if model.compiled:
        slots = {
            name.removeprefix(_OPTIMIZER): a for name, a in tensors.items() if name.startswith(_OPTIMIZER)
        }
        model.optimizer.set_state(slots, model.weights)
    return model


def load_weights(model: Model, filepath: str | os.PathLike[str]) -> None:
    """Read the weights of a file into `model`; see `Model.load_weights`."""
    check_built(model)
    _set_weights(model, _read(filepath)[0], filepath)


def check_built(model: Model) -> None:
    """Raise ValueError where the weights do not exist yet."""
    if not model.built:
        raise ValueError(
            "This model has no weights yet: give it an Input, call build((None, ...)) or fit it first."
        )


def _weights(model: Model) -> dict[str, np.ndarray]:
    return {_WEIGHTS + w.path: w.value for w in model.weights}


def _set_weights(model: Model, tensors: Mapping[str, np.ndarray], filepath: str | os.PathLike[str]) -> None:
    stored = {name for name in tensors if name.startswith(_WEIGHTS)}
    wanted = {_WEIGHTS + w.path: w for w in model.weights}
    if stored != set(wanted):
        missing, extra = sorted(set(wanted) - stored), sorted(stored - set(wanted))
        raise ValueError(
            f"{filepath} does not fit this model. Not in the file: {_names(missing)}; not in the model: "
            f"{_names(extra)}. Layers are matched by name."
        )
    for name, variable in wanted.items():
        if tensors[name].shape != variable.shape:
            raise ValueError(
                f"{filepath} does not fit this model: {variable.path!r} has shape {variable.shape} here "
                f"and {tensors[name].shape} in the file."
            )
    for name, variable in wanted.items():
        variable.assign(tensors[name])


def _names(paths: list[str]) -> str:
    return ", ".join(path.removeprefix(_WEIGHTS) for path in paths) or "nothing"


def _write(
    filepath: str | os.PathLike[str],
    tensors: dict[str, np.ndarray],
    metadata: Mapping[str, Any],
    overwrite: bool,
) -> None:
    from safetensors.numpy import save

    texts = {name: json.dumps(value) for name, value in metadata.items()}
    write_file(filepath, save(tensors, {"format": _FORMAT} | texts), overwrite)


def write_file(filepath: str | os.PathLike[str], data: bytes, overwrite: bool = True) -> None:
    """Write a file beside the target, see it on the disk, then put it in the target's place.

    Parameters
    ----------
    filepath : str or path
    data : bytes
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OSError
        The file cannot be written; an older one is left as it was.
    FileExistsError
        It exists, and `overwrite` is False.
    """
    path = Path(filepath)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Choose another name, or pass overwrite=True to replace it.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(
                error.errno,
                f"The model could not be saved to {path} ({error.strerror}). Choose a file in an "
                "existing folder that you may write to, with enough space. The model in memory "
                "and any older file are unchanged",
            ) from error
        raise


def _read(filepath: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    path = Path(filepath)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no model file {path}. Check the path; it is relative to {Path.cwd()}."
        )
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if metadata.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} is a safetensors file, but no model that tilefuse saved.")
        return tensors, {name: json.loads(text) for name, text in metadata.items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no model file, or a truncated or damaged one ({error}; {path.stat().st_size} "
            "bytes). Copy or save it again."
        ) from error
