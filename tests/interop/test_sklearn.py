"""Networks as estimators: scikit-learn's own checks, and its tools at work. Needs scikit-learn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import Input, Sequential, callbacks, layers
from tilefuse.datasets import load_digits_sample

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from tilefuse.interop.sklearn import Classifier, Regressor

X, Y = make_classification(200, 8, n_informative=5, n_classes=3, random_state=0)
X_R, Y_R = make_regression(200, 6, noise=1, random_state=0)
Y_R /= Y_R.std()


def not_met(estimator: Any) -> dict[str, str]:
    reason = "batches of other samples make other steps: a weight of 2 is not the sample twice"
    return {
        "check_sample_weight_equivalence_on_dense_data": reason,
        "check_sample_weight_equivalence_on_sparse_data": reason,
    }


@parametrize_with_checks(
    [Classifier(epochs=60, random_state=0), Regressor(epochs=60, random_state=0)],
    expected_failed_checks=not_met,
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def digits_network(shape: tuple[int, ...], outputs: int, filters: int = 8) -> Sequential:
    convolution = layers.Conv2D(filters, 3, activation="relu")
    head = [layers.MaxPooling2D(3), layers.Flatten(), layers.Dense(outputs, "softmax")]
    return Sequential([Input(shape), convolution, *head])


def test_cross_validation_in_a_pipeline() -> None:
    estimator = make_pipeline(StandardScaler(), Classifier(epochs=30, random_state=0))
    scores = cross_val_score(estimator, X, Y, cv=4)
    assert scores.mean() > 0.7
    np.testing.assert_array_equal(cross_val_score(estimator, X, Y, cv=4), scores)
    assert cross_val_score(Regressor(epochs=100, learning_rate=0.01), X_R, Y_R, cv=4).mean() > 0.9


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search_in_parallel(n_jobs: int) -> None:
    """Networks go to other processes and come back; the results are those of one process."""
    search = GridSearchCV(
        Classifier(epochs=5, random_state=1),
        {"network__hidden": [(4,), (32, 16)], "learning_rate": [1e-4, 1e-2]},
        cv=3,
        n_jobs=n_jobs,
    )
    search.fit(X, Y)
    assert search.best_params_ == {"network__hidden": (32, 16), "learning_rate": 1e-2}
    assert search.best_estimator_.model_.layers[1].units == 32
    assert search.best_estimator_.model_.compiled
    alone = clone(search.best_estimator_).fit(X, Y)
    np.testing.assert_array_equal(alone.predict_proba(X), search.predict_proba(X))


def test_search_over_networks_of_images() -> None:
    (x, y), _ = load_digits_sample()
    x, y = x[:600, ..., None] / 255, np.array(["zero", "one", "two", "many"])[np.minimum(y[:600], 3)]
    search = GridSearchCV(
        Classifier(digits_network, epochs=3, learning_rate=0.01, random_state=0),
        {"network__filters": [1, 8]},
        cv=2,
    )
    search.fit(x, y)
    assert search.best_params_ == {"network__filters": 8}
    assert search.best_score_ > 0.85
    assert set(search.predict(x)) == {"zero", "one", "two", "many"}


def test_two_classes_by_one_sigmoid() -> None:
    def network(shape: tuple[int, ...], outputs: int) -> Sequential:
        assert outputs == 2
        return Sequential([Input(shape), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])

    y = np.where(Y == 0, "no", "yes")
    estimator = Classifier(network, epochs=50, learning_rate=0.01, random_state=0).fit(X, y)
    probabilities = estimator.predict_proba(X)
    assert probabilities.shape == (200, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(estimator.predict(X) == "yes", probabilities[:, 1] > 0.5)
    assert estimator.score(X, y) > 0.9


def test_several_numbers_and_weights() -> None:
    y = np.stack([Y_R, -2 * Y_R], axis=1)
    estimator = Regressor(epochs=60, learning_rate=0.01, random_state=0).fit(X_R, y)
    assert estimator.predict(X_R).shape == y.shape
    assert estimator.score(X_R, y) > 0.95
    half = np.arange(200) < 100
    y = np.where(half, Y_R, 100.0)
    of_half = Regressor(epochs=60, learning_rate=0.01, random_state=0).fit(X_R, y, sample_weight=half)
    assert of_half.score(X_R[half], Y_R[half]) > 0.95


def test_random_state_leaves_other_seeds_alone() -> None:
    def draws(between: Any) -> list[np.ndarray]:
        tilefuse.seed(5)
        first = tilefuse.initializers.GlorotUniform()((2, 2))
        between()
        return [first, tilefuse.initializers.GlorotUniform()((2, 2))]

    estimator = Classifier(epochs=1, random_state=3)
    for a, b in zip(draws(lambda: None), draws(lambda: estimator.fit(X, Y)), strict=True):
        np.testing.assert_array_equal(a, b)
    same, other = clone(estimator).fit(X, Y), Classifier(epochs=1, random_state=4).fit(X, Y)
    np.testing.assert_array_equal(same.predict_proba(X), estimator.predict_proba(X))
    assert (other.predict_proba(X) != same.predict_proba(X)).any()
    from_outside = []
    for _ in range(2):
        tilefuse.seed(1)
        from_outside.append(Classifier(epochs=1).fit(X, Y).predict_proba(X))
    np.testing.assert_array_equal(*from_outside)


def test_each_training_begins_anew() -> None:
    optimizer, stopping = (
        tilefuse.optimizers.Adam(0.01),
        callbacks.EarlyStopping("loss", patience=0, min_delta=10.0),
    )
    estimator = Classifier(optimizer=optimizer, callbacks=[stopping], epochs=5, random_state=0)
    first = estimator.fit(X, Y).predict_proba(X)
    assert optimizer.iterations == 0
    assert len(estimator.history_["loss"]) == 2
    np.testing.assert_array_equal(estimator.fit(X, Y).predict_proba(X), first)
    estimator.set_params(learning_rate=0.5, callbacks=None, validation_split=0.25).fit(X, Y)
    assert estimator.model_.optimizer.learning_rate == 0.5
    assert len(estimator.history_["val_loss"]) == 5


def test_pickle_and_parameters() -> None:
    estimator = Classifier(epochs=2, random_state=0, network_arguments={"hidden": (3,)})
    assert estimator.get_params()["network__hidden"] == (3,)
    assert clone(estimator).set_params(network__activation="tanh").network_arguments == {
        "hidden": (3,),
        "activation": "tanh",
    }
    assert estimator.network_arguments == {"hidden": (3,)}
    with pytest.raises(ValueError, match="Invalid parameter 'rate'"):
        estimator.set_params(rate=1)
    again = pickle.loads(pickle.dumps(estimator.fit(X, Y)))
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    assert again.history_ == estimator.history_
    again.fit(X, Y)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="needs two classes or more; got one class"):
        Classifier().fit(X, np.zeros(200))
    with pytest.raises(
        ValueError, match=r"a model of \(None, 3\) outputs; expected \(None, 2\) or \(None, 1\)"
    ):
        Classifier(lambda shape, outputs: Sequential([Input(shape), layers.Dense(3)])).fit(X, Y == 1)
    with pytest.raises(ValueError, match=r"a model of \(None, 1\) outputs; expected \(None, 3\)"):
        Classifier(lambda shape, outputs: Sequential([Input(shape), layers.Dense(1)])).fit(X, Y)
    with pytest.raises(
        TypeError, match=r"must return a tilefuse\.Model that begins with an Input.*\(8,\), 3\)"
    ):
        Classifier(lambda shape, outputs: Sequential([layers.Dense(3)])).fit(X, Y)
