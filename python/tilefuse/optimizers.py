"""Optimizers: what becomes of a weight when its gradient is known.

Names, defaults and numerics as in Keras. In a compiled step the update is part of the native code, which
shares the arrays of `slots`; `apply_gradients` makes the same update for hand-written loops.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from . import ops, schedules
from ._config import Configurable, lookup, to_config
from .schedules import LearningRateSchedule
from .variables import Variable

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "schedules"]

Rate = float | LearningRateSchedule | Callable[[], float]


class Optimizer(Configurable):
    """Base of the optimizers; keeps the number of updates made and the slots of each variable.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
        A callable takes no arguments.
    weight_decay : float, optional
        Before each update, every variable is made smaller by `learning_rate` * `weight_decay` of itself.
    clipnorm : float, optional
        Upper limit of each gradient's L2 norm.
    clipvalue : float, optional
        Upper limit of the absolute value of each gradient's elements.
    global_clipnorm : float, optional
        Upper limit of the L2 norm of all gradients together.
    name : str

    Raises
    ------
    ValueError
        More than one kind of clipping, or a number out of its range.
    """

    #: What the compiled step calls the rule.
    kind: str

    def __init__(
        self,
        learning_rate: Rate,
        weight_decay: float | None,
        clipnorm: float | None,
        clipvalue: float | None,
        global_clipnorm: float | None,
        name: str,
    ) -> None:
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = [limit for limit, value in limits.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"Only one of clipnorm, clipvalue and global_clipnorm can be set, got {given}.")
        for limit, value in limits.items():
            if value is not None and not value > 0:
                raise ValueError(f"{limit} must be greater than 0, got {value!r}.")
        _in_range(name, weight_decay=(weight_decay or 0.0, np.inf))
        self.weight_decay, self.name = weight_decay, name
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.iterations = 0
        #: The learning rate as given: a number, a schedule or a callable.
        self.rate: Rate = _checked_rate(learning_rate)
        self._slots: dict[int, tuple[Variable, list[np.ndarray]]] = {}

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next update. Settable, except where a schedule rules it."""
        return float(self.rates(1)[0])

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        if isinstance(self.rate, LearningRateSchedule) and not isinstance(value, LearningRateSchedule):
            raise TypeError(
                f"This {self.name} was made with a {type(self.rate).__name__}, which sets the learning "
                "rate. To set it by hand, make the optimizer with a number."
            )
        self.rate = _checked_rate(value)

    def rates(self, steps: int) -> np.ndarray:
        """Return the learning rates of the next `steps` updates as float64."""
        if isinstance(self.rate, LearningRateSchedule):
            return self.rate.rates(np.arange(self.iterations, self.iterations + steps, dtype=np.float64))
        return np.full(steps, self.rate() if callable(self.rate) else self.rate, np.float64)

    def slots(self, variable: Variable) -> list[np.ndarray]:
        """Return the arrays that the rule keeps for `variable`; made on first use, updated in place."""
        if id(variable) not in self._slots:
            self._slots[id(variable)] = (
                variable,
                [variable.full(v) for v in self.slot_values()],
            )
        return self._slots[id(variable)][1]

    def state(self) -> dict[str, np.ndarray]:
        """Return the slots made so far as ``{"<path of the variable>/<number of the slot>": array}``."""
        return {
            f"{variable.path}/{i}": slot
            for variable, slots in self._slots.values()
            for i, slot in enumerate(slots)
        }

    def set_state(self, state: Mapping[str, np.ndarray], variables: Iterable[Variable]) -> None:
        """Copy what `state` returned into the slots of `variables`; those that it lacks stay as they are."""
        for variable in variables:
            if f"{variable.path}/0" in state:
                for i, slot in enumerate(self.slots(variable)):
                    slot[...] = state[f"{variable.path}/{i}"]

    def slot_values(self) -> list[float]:
        """Return the initial values of a variable's slots, in the native code's order."""
        raise NotImplementedError

    def hyperparameters(self) -> dict[str, Any]:
        """Return the rule's numbers and switches, by the names that the native code uses."""
        raise NotImplementedError

    def lower(self) -> dict[str, Any]:
        """Return what the compiled step needs to know."""
        return {
            "kind": self.kind,
            "weight_decay": self.weight_decay or 0.0,
            "clipvalue": self.clipvalue or 0.0,
            "clipnorm": self.clipnorm or 0.0,
            "global_clipnorm": self.global_clipnorm or 0.0,
            **self.hyperparameters(),
        }

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> int:
        """Update variables in place.

        Parameters
        ----------
        grads_and_vars : iterable of (array, Variable)
            Variables whose gradient is None stay as they are, with a warning.

        Returns
        -------
        int
            The number of updates made so far.

        Raises
        ------
        ValueError
            There is no gradient at all, or one has not its variable's shape.

        Examples
        --------
        >>> import numpy as np, tilefuse
        >>> w = tilefuse.Variable([1.0, 2.0])
        >>> tilefuse.optimizers.SGD(0.5).apply_gradients([(np.array([2.0, 0.0]), w)])
        1
        >>> w.numpy()
        array([0., 2.], dtype=float32)
        """
        pairs = list(grads_and_vars)
        used = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
        if not used:
            raise ValueError(
                "No gradient was given for any variable. Was the loss computed from the model's output "
                "inside the tape's block?"
            )
        if len(used) < len(pairs):
            names = ", ".join(variable.path for gradient, variable in pairs if gradient is None)
            warnings.warn(f"No gradient for {names}: left unchanged.", stacklevel=2)
        gradients = self._clipped([_checked_gradient(gradient, variable) for gradient, variable in used])
        slots = [self.slots(variable) for _, variable in used]
        rate = self.learning_rate
        self.iterations += 1
        self.update(
            [variable.value for _, variable in used],
            gradients,
            [list(column) for column in zip(*slots, strict=True)],
            rate,
        )
        return self.iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable]) -> int:
        """Call `apply_gradients` with the pairs of the two sequences."""
        return self.apply_gradients(zip(grads, trainable_variables, strict=True))

    def update(
        self,
        params: list[np.ndarray],
        grads: list[np.ndarray],
        slots: list[list[np.ndarray]],
        learning_rate: float,
    ) -> None:
        """Change `params` and `slots` (one list for each kind of slot) in place."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"learning_rate": to_config(self.rate)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        rate = config.get("learning_rate")
        if isinstance(rate, Mapping):
            config = {**config, "learning_rate": schedules.get(rate)}
        return cls(**config)

    def _clipped(self, gradients: list[np.ndarray]) -> list[np.ndarray]:
        limits = (
            (self.clipvalue, ops.clip_by_value),
            (self.clipnorm, ops.clip_by_norm),
            (self.global_clipnorm, ops.clip_by_global_norm),
        )
        for limit, clip in limits:
            if limit is not None:
                gradients = [gradient.copy() for gradient in gradients]
                clip(gradients, limit)
        return gradients


class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's variant of it.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    momentum : float
        In [0, 1]. 0 keeps no velocity.
    nesterov : bool
    weight_decay, clipnorm, clipvalue, global_clipnorm, name
        As for every `Optimizer`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.optimizers.SGD(0.1, momentum=0.9).learning_rate
    0.1
    """

    kind = "sgd"

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "SGD",
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        _in_range(name, momentum=(momentum, 1))
        self.momentum, self.nesterov = momentum, nesterov

    def slot_values(self) -> list[float]:
        return [0.0] if self.momentum > 0 else []

    def hyperparameters(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov}

    def update(
        self,
        params: list[np.ndarray],
        grads: list[np.ndarray],
        slots: list[list[np.ndarray]],
        learning_rate: float,
    ) -> None:
        decay = self.weight_decay or 0.0
        if slots:
            ops.momentum_step(
                params,
                grads,
                *slots,
                learning_rate=learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=decay,
            )
        else:
            ops.sgd_step(params, grads, learning_rate=learning_rate, weight_decay=decay)


class Adagrad(Optimizer):
    """Steps that shrink with the sum of the squared gradients. Duchi et al., JMLR 12, 2011."""

    kind = "adagrad"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "adagrad",
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        _in_range(
            name, initial_accumulator_value=(initial_accumulator_value, np.inf), epsilon=(epsilon, np.inf)
        )
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def slot_values(self) -> list[float]:
        return [self.initial_accumulator_value]

    def hyperparameters(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}

    def update(
        self,
        params: list[np.ndarray],
        grads: list[np.ndarray],
        slots: list[list[np.ndarray]],
        learning_rate: float,
    ) -> None:
        ops.adagrad_step(
            params,
            grads,
            *slots,
            learning_rate=learning_rate,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
        )


class RMSprop(Optimizer):
    """Steps divided by a moving root mean square of the gradient; `centered` takes its mean off first.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    rho : float
        How much of the moving averages stays at each step.
    momentum : float
    epsilon : float
        Added to the mean square before the root.
    centered : bool
    weight_decay, clipnorm, clipvalue, global_clipnorm, name
        As for every `Optimizer`.
    """

    kind = "rmsprop"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "rmsprop",
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        _in_range(name, rho=(rho, 1), momentum=(momentum, 1), epsilon=(epsilon, np.inf))
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered

    def slot_values(self) -> list[float]:
        return [0.0] * (1 + (self.momentum > 0) + self.centered)

    def hyperparameters(self) -> dict[str, Any]:
        return {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }

    def update(
        self,
        params: list[np.ndarray],
        grads: list[np.ndarray],
        slots: list[list[np.ndarray]],
        learning_rate: float,
    ) -> None:
        remaining = list(slots)
        mean_squares = remaining.pop(0)
        velocities = remaining.pop(0) if self.momentum > 0 else None
        mean_gradients = remaining.pop(0) if self.centered else None
        ops.rmsprop_step(
            params,
            grads,
            mean_squares,
            velocities,
            mean_gradients,
            learning_rate=learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
        )


class Adam(Optimizer):
    """Steps from bias-corrected moving averages of the gradient and its square. Kingma and Ba, ICLR 2015.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    beta_1, beta_2 : float
        How much of each average stays at each step.
    epsilon : float
        Added to the root of the mean square.
    amsgrad : bool
        Divide by the largest mean square seen so far.
    weight_decay, clipnorm, clipvalue, global_clipnorm, name
        As for every `Optimizer`.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.optimizers.Adam().get_config()["beta_2"]
    0.999
    """

    kind = "adam"

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "adam",
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        _in_range(name, epsilon=(epsilon, np.inf))
        for beta, value in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: {beta} must be at least 0 and less than 1, got {value!r}.")
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad

    def slot_values(self) -> list[float]:
        return [0.0] * (2 + self.amsgrad)

    def hyperparameters(self) -> dict[str, Any]:
        return {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }

    def update(
        self,
        params: list[np.ndarray],
        grads: list[np.ndarray],
        slots: list[list[np.ndarray]],
        learning_rate: float,
    ) -> None:
        ops.adam_step(
            params,
            grads,
            *slots,
            step=self.iterations,
            learning_rate=learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay or 0.0,
        )


class AdamW(Adam):
    """Adam with weight decay. Loshchilov and Hutter, ICLR 2019."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "adamw",
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW needs a weight_decay; without one, use Adam.")
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            name,
        )


_CLASSES: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}


def get(identifier: Any) -> Optimizer:
    """Return the optimizer that an instance, class, name or config stands for.

    Examples
    --------
    >>> import tilefuse
    >>> tilefuse.optimizers.get("adam").learning_rate
    0.001
    """
    return lookup("optimizer", identifier, Optimizer, _CLASSES)


def _checked_rate(rate: Any) -> Rate:
    if isinstance(rate, LearningRateSchedule) or callable(rate):
        return rate
    try:
        value = float(rate)
    except (TypeError, ValueError):
        raise TypeError(
            f"learning_rate must be a number, a LearningRateSchedule or a callable, got {rate!r} of type "
            f"{type(rate).__name__}."
        ) from None
    if not 0 <= value < np.inf:
        raise ValueError(f"learning_rate must be a finite number of at least 0, got {rate!r}.")
    return value


def _checked_gradient(gradient: Any, variable: Variable) -> np.ndarray:
    array = np.ascontiguousarray(gradient, variable.dtype)
    if array.shape != variable.shape:
        raise ValueError(
            f"The gradient of {variable.path!r} must have its shape {variable.shape}, got {array.shape}."
        )
    return array


def _in_range(name: str, **values: tuple[float, float]) -> None:
    """Check ``parameter=(value, upper limit)``."""
    for parameter, (value, limit) in values.items():
        if not 0 <= value <= limit:
            raise ValueError(f"{name}: {parameter} must be between 0 and {limit}, got {value!r}.")
