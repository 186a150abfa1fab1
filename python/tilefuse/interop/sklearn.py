"""Networks as estimators of scikit-learn, for its pipelines, cross-validation and searches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import optimizers
from .._runtime import generator, next_seed, seeded
from ..layers import Dense, Flatten, Input
from ..models import Model, Sequential

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError('estimators need scikit-learn 1.6: pip install "tilefuse[sklearn]"') from error

__all__ = ["Classifier", "Regressor"]

_OF_NETWORK = "network__"


class _Estimator(BaseEstimator):
    """What both have in common: parameters, and the network that is trained."""

    #: The activation of a network's last layer.
    _last: str

    def __init__(
        self,
        network: Callable[..., Model] | None = None,
        network_arguments: dict[str, Any] | None = None,
        optimizer: Any = "adam",
        learning_rate: Any = None,
        batch_size: int = 32,
        epochs: int = 20,
        validation_split: float = 0.0,
        callbacks: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.network_arguments = network_arguments
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep` also each of `network_arguments`, as ``network__<name>``."""
        own: dict[str, Any] = super().get_params(deep)
        if deep and isinstance(self.network_arguments, dict):
            own |= {_OF_NETWORK + name: value for name, value in self.network_arguments.items()}
        return own

    def set_params(self, **params: Any) -> _Estimator:
        """Set parameters; ``network__<name>`` is an argument of `network`."""
        own = {name: value for name, value in params.items() if not name.startswith(_OF_NETWORK)}
        super().set_params(**own)
        arguments = {name.removeprefix(_OF_NETWORK): params[name] for name in params if name not in own}
        if arguments:
            self.network_arguments = {**(self.network_arguments or {}), **arguments}
        return self

    def _train(self, x: np.ndarray, y: np.ndarray, outputs: int, losses: dict[int, str], weight: Any) -> None:
        """Make and train `model_`; `losses` are those of networks by their number of outputs."""
        if weight is not None and not np.asarray(weight).any():
            raise ValueError("Every sample weight is zero; expected at least one that is positive.")
        state = self.random_state
        with seeded(None if state is None else int(check_random_state(state).randint(2**31 - 1))):
            model = self._made(x.shape[1:], outputs)
            shapes = {(None, n): loss for n, loss in losses.items()}
            if model.output_shape not in shapes:
                expected = " or ".join(map(str, shapes))
                raise ValueError(
                    f"network made a model of {model.output_shape} outputs; expected {expected}."
                )
            model.compile(self._new_optimizer(), shapes[model.output_shape])
            if self.validation_split:  # it takes the last ones, and data may come sorted
                order = generator(next_seed()).permutation(len(x))
                x, y, weight = x[order], y[order], None if weight is None else np.asarray(weight)[order]
            self.history_ = model.fit(
                x,
                y,
                batch_size=self.batch_size,
                epochs=self.epochs,
                validation_split=self.validation_split,
                callbacks=copy.deepcopy(self.callbacks),
                verbose=self.verbose,
                sample_weight=weight,
            ).history
        self.model_ = model

    def _made(self, shape: tuple[int, ...], outputs: int) -> Model:
        make = self.network or self._default_network
        model = make(shape, outputs, **(self.network_arguments or {}))
        if not isinstance(model, Model) or not model.built:
            raise TypeError(
                f"network must return a tilefuse.Model that begins with an Input, not {model!r}; it is called"
                f" as network({shape}, {outputs}), with the shape of a sample and the number of outputs."
            )
        return model

    def _default_network(
        self,
        shape: tuple[int, ...],
        outputs: int,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "relu",
    ) -> Model:
        """Dense layers of `hidden` units."""
        layers = [Dense(units, activation) for units in hidden]
        return Sequential([Input(shape), Flatten(), *layers, Dense(outputs, self._last)])

    def _new_optimizer(self) -> optimizers.Optimizer:
        """Return an optimizer that has not trained anything yet."""
        serialized = optimizers.get(self.optimizer).serialized()
        if self.learning_rate is not None:
            serialized["config"]["learning_rate"] = self.learning_rate
        return optimizers.get(serialized)

    def _predicted(self, x: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, x, reset=False, allow_nd=True))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if "model_" not in state:
            return state
        model = state["model_"]
        return state | {"model_": (type(model), model.get_config(), model.get_weights())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "model_" in state:
            cls, config, weights = state["model_"]
            state = state | {"model_": cls.from_config(config)}
            state["model_"].set_weights(weights)
        super().__setstate__(state)


class Classifier(ClassifierMixin, _Estimator):
    """A network that tells classes apart, as an estimator.

    Parameters
    ----------
    network : callable, optional
        ``network(shape, outputs, **network_arguments)`` returns a `Model` for samples of a shape, that ends
        with a softmax of so many outputs, one for each class; or, for two classes, with a sigmoid of one. By
        default two dense layers, with the arguments ``hidden=(64, 64)`` and ``activation="relu"``.
    network_arguments : dict, optional
        In searches, each is a parameter of its own: ``network__hidden``.
    optimizer : str or Optimizer
        Each training begins with a new one.
    learning_rate : float or schedule, optional
        In place of the optimizer's.
    batch_size, epochs, validation_split, callbacks, verbose
        As for `Model.fit`; callbacks are copied for each training, and what is split off is drawn at random.
    random_state : int, RandomState or None
        With an int, each training gives the same weights; with None they follow from `tilefuse.seed`.

    Attributes
    ----------
    classes_ : array [classes]
    model_ : Model
        The trained network.
    history_ : dict of str to list of float
        What each epoch gave.
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from tilefuse.interop.sklearn import Classifier
    >>> x, y = load_iris(return_X_y=True)
    >>> estimator = make_pipeline(StandardScaler(), Classifier(epochs=40, random_state=0))
    >>> bool(cross_val_score(estimator, x, y).mean() > 0.9)
    True
    """

    _last = "softmax"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Classifier:
        """Train a new network.

        Parameters
        ----------
        X : array_like [n, ...]
        y : array_like [n]
            Classes: numbers, strings, anything that can be sorted.
        sample_weight : array_like [n], optional

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Data don't fit, there is only one class, or `network` made another model than asked for.
        """
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(column_or_1d(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier needs two classes or more; got one class: {self.classes_}.")
        classes = len(self.classes_)
        losses = {classes: "sparse_categorical_crossentropy"}
        if classes == 2:
            losses[1] = "binary_crossentropy"
        self._train(X, labels, classes, losses, sample_weight)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, [n, classes]."""
        p = self._predicted(X)
        return np.hstack([1 - p, p]) if p.shape[1] == 1 else p

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, [n]."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class Regressor(RegressorMixin, _Estimator):
    """A network that predicts numbers, as an estimator. It minimises the mean squared error.

    Parameters
    ----------
    network : callable, optional
        ``network(shape, outputs, **network_arguments)`` returns a `Model` for samples of a shape, that ends
        with so many outputs. By default as for `Classifier`.
    network_arguments, optimizer, learning_rate, batch_size, epochs, validation_split, callbacks, verbose
        As for `Classifier`.
    random_state : int, RandomState or None
        As for `Classifier`.

    Attributes
    ----------
    model_ : Model
        The trained network.
    history_ : dict of str to list of float
        What each epoch gave.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from tilefuse.interop.sklearn import Regressor
    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = x @ [1.0, 2.0, -1.0]
    >>> bool(Regressor(epochs=50, random_state=0).fit(x, y).score(x, y) > 0.9)
    True
    """

    _last = "linear"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Regressor:
        """Train a new network.

        Parameters
        ----------
        X : array_like [n, ...]
        y : array_like [n] or [n, outputs]
        sample_weight : array_like [n], optional

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Data don't fit, or `network` made another model than asked for.
        """
        X, y = validate_data(self, X, y, allow_nd=True, multi_output=True, y_numeric=True)
        self._one = y.ndim == 1
        y = y[:, None] if self._one else y
        self._train(X, y, y.shape[1], {y.shape[1]: "mean_squared_error"}, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions, float64, of the shape of `y` when it was trained."""
        y = self._predicted(X).astype(np.float64)  # as scikit-learn's own
        return y[:, 0] if self._one else y

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
