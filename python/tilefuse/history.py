"""The curves of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

_TRAINING, _VALIDATION, _GRID = "#2f6fb3", "#d9722e", "#d8dce2"
_LABELS = {"acc": "accuracy"}


def plot_history(
    history: Mapping[str, Sequence[Any]], epochs: Sequence[int], path: str | os.PathLike[str] | None = None
) -> Any:
    """Draw each result over the epochs, training and validation in one panel, and return the figure.

    Parameters
    ----------
    history : mapping of str to sequence
        "loss", "accuracy", "val_loss", ...: one number an epoch; what is not a number is left out.
    epochs : sequence of int
        The epochs' numbers, from 0.
    path : str or path, optional
        Write the figure to this file; its ending says the format.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [name for name in history if not name.startswith("val_") and _is_curve(history[name])]
    if not panels:
        raise ValueError("There is nothing to plot: the history holds no epoch. Call fit first.")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * rows), layout="constrained", dpi=120)
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        _draw(axes, epochs, history[name], "training", _TRAINING)
        if f"val_{name}" in history:
            values = history[f"val_{name}"]
            # Validation may be rarer than training: its values belong to the epochs at equal distances.
            every = max(1, len(epochs) // max(len(values), 1))
            _draw(axes, list(epochs)[every - 1 :: every][: len(values)], values, "validation", _VALIDATION)
        axes.set_xlabel("epoch")
        axes.set_ylabel(_LABELS.get(name, name).replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    for axes in figure.axes[len(panels) :]:
        axes.set_visible(False)
    if path is not None:
        figure.savefig(os.fspath(path))
    return figure


def _draw(axes: Any, epochs: Sequence[int], values: Sequence[Any], label: str, color: str) -> None:
    marker = "o" if len(values) <= 30 else None
    axes.plot(
        [epoch + 1 for epoch in epochs],
        values,
        color=color,
        linewidth=2,
        marker=marker,
        markersize=4,
        label=label,
    )


def _is_curve(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(value, (int, float)) for value in values)
