"""What `fit` shows while it trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any


class Progress:
    """A bar for each epoch (verbose 1), a line after each (verbose 2), or nothing (verbose 0).

    "auto" is the bar on a terminal or in a notebook, and the line elsewhere.
    """

    def __init__(self, verbose: str | int, epochs: int, steps: int | None) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}.")
        self.verbose = (
            (1 if sys.stdout.isatty() or _in_notebook() else 2) if verbose == "auto" else int(verbose)
        )
        self.epochs, self.steps = epochs, steps
        self._bar: Any = None

    @property
    def live(self) -> bool:
        """Whether `update` shows anything."""
        return self.verbose == 1

    def begin(self, epoch: int) -> None:
        """Start the epoch number `epoch`, counted from 0."""
        self._title, self._start = f"Epoch {epoch + 1}/{self.epochs}", time.perf_counter()
        if self.live:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.steps, desc=self._title, unit="step", file=sys.stdout, dynamic_ncols=True
            )

    def update(self, step: int, logs: Mapping[str, Any]) -> None:
        """Show that `step` steps are done."""
        if self._bar is not None:
            self._bar.set_postfix_str(_text(logs), refresh=False)
            self._bar.update(step - self._bar.n)

    def trained(self, steps: int) -> None:
        """Note the time of the epoch's training, before validation and callbacks."""
        self._seconds = time.perf_counter() - self._start
        self._done = steps

    def end(self, logs: Mapping[str, Any]) -> None:
        """Show the epoch's results."""
        if self._bar is not None:
            self.update(self._done, logs)
        elif self.verbose == 2:
            rate = self._done / max(self._seconds, 1e-9)
            print(f"{self._title}  {self._seconds:.2f} s  {rate:,.0f} steps/s  {_text(logs)}", flush=True)

    def line(self, title: str, logs: Mapping[str, Any]) -> None:
        """Print results that belong to no epoch."""
        if self.verbose:
            print(f"{title}: {_text(logs)}", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _text(logs: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if abs(value) < 1e-3 else f"{name} {value:.4f}"
        for name, value in logs.items()
        if isinstance(value, (int, float))
    )


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
