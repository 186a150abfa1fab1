"""fit, evaluate and predict with batches from iterables, iterators and generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import blobs, classifier, same_weights
from tilefuse import callbacks

pytestmark = pytest.mark.usefixtures("device")

X, Y = blobs(70)
WEIGHTS = np.linspace(0.5, 2, 70).astype(np.float32)


class Batches:
    """An iterable of batches of 16, of which the last has 6; it has a length if asked for."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays, self.passes = arrays or (X, Y), 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        for i in range(0, len(X), 16):
            parts = tuple(array[i : i + 16] for array in self.arrays)
            yield parts if len(parts) > 1 else parts[0]


class CountedBatches(Batches):
    def __len__(self) -> int:
        return 5


def endless(*arrays: np.ndarray) -> Iterator[Any]:
    while True:
        yield from Batches(*arrays)


@pytest.mark.parametrize(
    ("source", "steps"), [(Batches, None), (CountedBatches, None), (Batches, 5), (endless, 5)]
)
@pytest.mark.parametrize("metrics", [("accuracy",), ("accuracy", "mae"), ()])
def test_batches_train_as_arrays_do(source: Callable[..., Any], steps: int | None, metrics: Any) -> None:
    def model() -> tilefuse.Sequential:
        model = classifier("adam", 0.3)
        measures = [m if m == "accuracy" else spread for m in metrics]
        model.compile("adam", "sparse_categorical_crossentropy", metrics=measures)
        return model

    streamed, expected = model(), model()
    history = streamed.fit(
        source(), epochs=3, verbose=0, validation_data=source(), steps_per_epoch=steps, validation_steps=steps
    )
    other = expected.fit(X, Y, 16, 3, verbose=0, shuffle=False, validation_data=(X, Y))
    assert same_weights(streamed, expected)
    assert list(history.history) == list(other.history)
    assert history.epoch == other.epoch
    for name, values in other.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)
    np.testing.assert_allclose(
        streamed.evaluate(source(), steps=steps, verbose=0), expected.evaluate(X, Y, verbose=0), rtol=1e-5
    )
    np.testing.assert_array_equal(streamed.predict(source(X), steps=steps), expected.predict(X))
    np.testing.assert_array_equal(streamed.predict(source(X, Y), steps=steps), expected.predict(X))


def spread(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    return y_pred.max(axis=1) - y_pred.min(axis=1)


def test_weights_of_samples_and_classes() -> None:
    streamed, expected = classifier(), classifier()
    streamed.fit(Batches(X, Y, WEIGHTS), epochs=2, verbose=0, class_weight={0: 3.0})
    expected.fit(X, Y, 16, 2, verbose=0, shuffle=False, sample_weight=WEIGHTS, class_weight={0: 3.0})
    assert same_weights(streamed, expected)
    np.testing.assert_allclose(
        streamed.evaluate(Batches(X, Y, WEIGHTS), verbose=0),
        expected.evaluate(X, Y, sample_weight=WEIGHTS, verbose=0),
        rtol=1e-5,
    )


def test_a_model_is_built_from_the_first_batch() -> None:
    model = tilefuse.Sequential([tilefuse.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(([x, y] for x, y in endless()), steps_per_epoch=2, verbose=0)
    assert model.input_shape == (None, 8)


def test_steps_go_on_through_the_passes() -> None:
    batches = Batches()
    streamed, expected = classifier(), classifier()
    streamed.fit(batches, epochs=5, steps_per_epoch=2, verbose=0)
    expected.fit(X, Y, 16, 2, verbose=0, shuffle=False)
    assert batches.passes == 2
    assert same_weights(streamed, expected)
    streamed.fit(batches, epochs=1, steps_per_epoch=7, verbose=0)
    assert batches.passes == 4


def test_a_validation_starts_at_the_beginning() -> None:
    model = classifier(tilefuse.optimizers.SGD(1e-30))
    history = model.fit(Batches(), epochs=3, validation_data=Batches(), validation_steps=2, verbose=0).history
    assert len(set(history["val_loss"])) == 1
    assert history["val_loss"][0] == pytest.approx(model.evaluate(X[:32], Y[:32], verbose=0)[0])


def test_validation_of_arrays_and_in_turns() -> None:
    model = classifier()
    history = model.fit(Batches(), epochs=4, validation_data=(X, Y), validation_freq=2, verbose=0).history
    assert len(history["val_loss"]) == 2
    history = model.fit(X, Y, epochs=1, validation_data=Batches(), verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(X, Y, verbose=0)[0])


def test_hooks_and_params() -> None:
    class Record(callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.seen.append(("begin", batch))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(("end", batch, sorted(logs)))

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(("test", batch))

        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(("predict", len(logs["outputs"])))

    record, model = Record(), classifier()
    model.fit(CountedBatches(), verbose=0, callbacks=[record])
    steps = [(("begin", i), ("end", i, ["accuracy", "loss"])) for i in range(5)]
    assert record.seen == [event for step in steps for event in step]
    assert record.params["steps"] == 5
    record.seen.clear()
    model.evaluate(Batches(), verbose=0, callbacks=[record])
    model.predict(Batches(X), callbacks=[record])
    assert record.seen == [("test", i) for i in range(5)] + [("predict", n) for n in (16, 16, 16, 16, 6)]


def test_callbacks_act_between_batches() -> None:
    class Act(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                self.model.optimizer.learning_rate = 0.0
            if batch == 3:
                self.model.stop_training = True

    model, expected = classifier("sgd"), classifier("sgd")
    history = model.fit(endless(), epochs=4, steps_per_epoch=50, verbose=0, callbacks=[Act()])
    expected.fit(X[:32], Y[:32], 16, verbose=0, shuffle=False)
    assert history.epoch == [0]
    assert model.optimizer.iterations == 4
    assert same_weights(model, expected)


def test_schedules_count_the_batches() -> None:
    def model() -> tilefuse.Sequential:
        return classifier(tilefuse.optimizers.SGD(tilefuse.schedules.ExponentialDecay(0.5, 1, 0.5)))

    streamed, expected = model(), model()
    streamed.fit(Batches(), epochs=2, verbose=0)
    expected.fit(X, Y, 16, 2, verbose=0, shuffle=False)
    assert same_weights(streamed, expected)


@pytest.mark.parametrize(("source", "total"), [(CountedBatches, "5/5"), (Batches, "5step")])
def test_progress(capsys: pytest.CaptureFixture[str], source: type, total: str) -> None:
    classifier().fit(source(), epochs=1, verbose=2)
    assert "Epoch 1/1" in capsys.readouterr().out
    classifier().fit(source(), epochs=1, verbose=1)
    assert total in capsys.readouterr().out.replace(" ", "")


def test_a_generator_is_left_to_its_owner() -> None:
    source = endless()
    model = classifier()
    model.fit(source, steps_per_epoch=2, verbose=0)
    model.evaluate(source, steps=2, verbose=0)
    assert len(next(source)[0]) == 6


def test_ctrl_c_closes_the_iteration() -> None:
    closed = []

    class Guarded:
        def __iter__(self) -> Iterator[Any]:
            try:
                yield from endless()
            finally:
                closed.append(True)

    class Interrupt(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                raise KeyboardInterrupt

    model = classifier()
    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 1, after 3 steps") as caught:
        model.fit(Guarded(), verbose=0, callbacks=[Interrupt()])
    assert closed == [True]
    assert caught.value is not None
    assert model.optimizer.iterations == 3


def fit(x: Any, **how: Any) -> Callable[[], Any]:
    return lambda: classifier().fit(x, verbose=0, **how)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "endless": (fit(endless()), "A generator can be run through only once.*give steps_per_epoch"),
    "endless validation": (fit(X, y=Y, validation_data=endless()), "only once.*give validation_steps"),
    "endless evaluation": (lambda: classifier().evaluate(endless()), "only once.*give steps"),
    "endless prediction": (lambda: classifier().predict(endless(X)), "only once.*give steps"),
    "too short": (
        fit(iter(Batches()), steps_per_epoch=4, epochs=2),
        "generator ended after 1 of the 4 batches.*smaller steps_per_epoch, fewer epochs",
    ),
    "nothing": (fit({}.keys()), "dict_keys gave no batch"),
    "nothing in steps": (fit({}.keys(), steps_per_epoch=3), "dict_keys ended after 0 of the 3 batches"),
    "y": (fit(Batches(), y=Y), "Leave out y, since x gives batches"),
    "sample_weight": (fit(Batches(), sample_weight=WEIGHTS), "Leave out sample_weight, since x gives"),
    "batch_size": (fit(Batches(), batch_size=8), "Leave out batch_size, since x gives batches"),
    "predict batch_size": (
        lambda: classifier().predict(Batches(X), batch_size=8),
        "Leave out batch_size, since x gives batches",
    ),
    "validation_split": (fit(Batches(), validation_split=0.2), "Leave out validation_split"),
    "validation_steps": (fit(Batches(), validation_steps=2), "Leave out validation_steps, since there is no"),
    "steps with arrays": (fit(X, y=Y, steps_per_epoch=2), "Leave out steps_per_epoch, since x is an array"),
    "steps": (fit(Batches(), steps_per_epoch=0), "steps_per_epoch must be an integer of at least 1, got 0"),
    "no labels": (fit(Batches(X)), r"Each batch must be \(x, y\).*got a ndarray.*class_mode=None"),
    "too much": (fit(Batches(X, Y, Y, Y)), "got a tuple of 4"),
    "width": (fit(Batches(X[:, :5], Y)), r"x must have the shape \(n, 8\).*got \(16, 5\)"),
    "lengths": (fit([(X, Y[:3])].__iter__(), steps_per_epoch=1), "x has 70 samples and y has 3 labels"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes(mistake: str) -> None:
    call, text = WRONG[mistake]
    with pytest.raises(ValueError, match=text):
        call()
