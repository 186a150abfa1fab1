"""Sequential: structure, fit and its arguments, evaluate, predict, freezing."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
import tilefuse
from helpers.training import OPTIMIZERS, blobs, classifier, same_weights
from tilefuse import callbacks, layers

pytestmark = pytest.mark.usefixtures("device")


def test_shapes_names_and_parameters() -> None:
    model = tilefuse.Sequential(
        [
            layers.Flatten(input_shape=(4, 2)),
            layers.Dense(5, "relu"),
            layers.Dense(6),
            layers.Reshape((2, -1)),
        ]
    )
    assert model.input_shape == (None, 4, 2)
    assert model.output_shape == (None, 2, 3)
    assert [layer.name for layer in model.layers] == ["flatten", "dense", "dense_1", "reshape"]
    assert [w.path for w in model.weights] == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]
    assert model.count_params() == 8 * 5 + 5 + 5 * 6 + 6
    assert model.get_layer("dense_1") is model.get_layer(index=2)


def test_built_lazily_from_data() -> None:
    x, y = blobs()
    model = tilefuse.Sequential([layers.Dense(4, "relu"), layers.Dense(3, "softmax")])
    assert not model.built
    assert model.weights == []
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    assert model.input_shape == (None, 8)
    assert model.predict(x).shape == (200, 3)


def test_input_dim_and_add_and_pop() -> None:
    model = tilefuse.Sequential()
    model.add(layers.Dense(4, input_dim=2))
    model.add(layers.Dense(3))
    assert model.output_shape == (None, 3)
    assert model.pop().name == "dense_1"
    assert model.output_shape == (None, 4)


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier()
    model.layers[0].trainable = False
    model.summary()
    text = capsys.readouterr().out
    for part in ("dense (Dense)", "(None, 16)", "144 (frozen)", "Parameters: 195", "trainable: 51"):
        assert part in text
    lines: list[str] = []
    tilefuse.Sequential([layers.Dense(2)]).summary(print_fn=lines.append)
    assert "Not built yet" in lines[0]


def test_training_learns_and_history_tells() -> None:
    x, y = blobs()
    model = classifier(tilefuse.optimizers.Adam(0.02))
    history = model.fit(x, y, epochs=30, validation_split=0.25, verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epoch == list(range(30))
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert history.history["val_accuracy"][-1] > 0.9
    assert all(isinstance(value, float) for value in history.history["loss"])


def test_normalisation_of_a_flattened_image_is_not_that_of_its_channels() -> None:
    model = tilefuse.Sequential(
        [
            tilefuse.Input((5, 4, 2)),
            layers.Conv2D(3, 3),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.weights])
    x = rng.normal(size=(4, 5, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(model.predict(x), model(x), rtol=1e-5)


def test_evaluate_agrees_with_predict() -> None:
    x, y = blobs()
    model = classifier()
    model.fit(x, y, epochs=5, verbose=0)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    p = model.predict(x)
    assert accuracy == pytest.approx((p.argmax(axis=1) == y).mean())
    assert loss == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-4)
    np.testing.assert_allclose(model(x), p, rtol=1e-4, atol=1e-6)
    results = model.evaluate(x, y, batch_size=7, verbose=0, return_dict=True)
    assert results == pytest.approx({"loss": loss, "accuracy": accuracy})


def test_evaluate_without_metrics_is_a_number() -> None:
    x, y = blobs()
    model = classifier(metrics=())
    assert isinstance(model.evaluate(x, y, verbose=0), float)
    assert model.evaluate(x, y, verbose=0, return_dict=True).keys() == {"loss"}


def test_predict_needs_no_compile() -> None:
    model = tilefuse.Sequential([tilefuse.Input((3,)), layers.Dense(2)])
    x = np.ones((5, 3), np.float32)
    np.testing.assert_allclose(model.predict(x, batch_size=2), model(x), rtol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(x), model(x), rtol=1e-6)


def test_validation_split_takes_the_last_samples() -> None:
    x, y = blobs(100)
    parts = classifier("sgd", seed=3), classifier("sgd", seed=3)
    a = parts[0].fit(x, y, epochs=3, validation_split=0.3, verbose=0)
    b = parts[1].fit(x[:70], y[:70], epochs=3, validation_data=(x[70:], y[70:]), verbose=0)
    assert same_weights(*parts)
    assert a.history == b.history


def test_validation_frequency() -> None:
    x, y = blobs(100)
    history = classifier().fit(x, y, epochs=4, validation_split=0.2, validation_freq=2, verbose=0)
    assert len(history.history["val_loss"]) == 2


def test_sample_weight_zero_leaves_samples_out() -> None:
    x, y = blobs(64)
    weighted, doubled = classifier("sgd"), classifier("sgd")
    doubled.set_weights(weighted.get_weights())
    # The mean over 64 samples, half of them with weight 2 and half with 0, is that over the first half.
    weight = np.repeat([2.0, 0.0], 32)
    weighted.fit(x, y, batch_size=64, sample_weight=weight, shuffle=False, verbose=0)
    doubled.fit(x[:32], y[:32], batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(weighted.get_weights(), doubled.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_class_weight_times_sample_weight() -> None:
    x, y = blobs(90)
    a, b = classifier("sgd"), classifier("sgd")
    sample_weight = np.linspace(0.5, 1.5, 90)
    a.fit(x, y, class_weight={0: 2.0, 2: 0.5}, sample_weight=sample_weight, verbose=0)
    b.fit(x, y, sample_weight=sample_weight * np.array([2.0, 1.0, 0.5])[y], verbose=0)
    for u, v in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)


def test_metrics_are_not_weighted_unless_asked() -> None:
    x, y = blobs(60)
    model = classifier(metrics=())
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]
    )
    right = model.predict(x).argmax(axis=1) == y
    weight = np.where(right, 3.0, 1.0)
    results = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert results["accuracy"] == pytest.approx(right.mean())
    assert results["weighted_accuracy"] == pytest.approx((right * weight).sum() / weight.sum())


def highest(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    return y_pred.max(axis=1)


@pytest.mark.parametrize("metric", [tilefuse.metrics.F1Score("macro"), "precision", highest])
def test_other_metrics_come_from_the_predictions(metric: Any) -> None:
    x, y = blobs(50)
    model = classifier(metrics=["accuracy", metric])
    history = model.fit(x, y, verbose=0, validation_split=0.2)
    name = list(history.history)[2]
    measured = tilefuse.metrics.get(metric)
    measured.reset_state()
    measured.update_state(y[40:], model.predict(x[40:]))
    assert history.history[f"val_{name}"][0] == pytest.approx(measured.result(), rel=1e-5)


def test_training_metrics_see_the_epochs_own_outputs() -> None:
    x, y = blobs(50)
    model = classifier(
        optimizer=tilefuse.optimizers.SGD(0.0), metrics=["accuracy", tilefuse.metrics.Recall()]
    )
    history = model.fit(x, y, verbose=0)
    loss, accuracy, recall = model.evaluate(x, y, verbose=0)
    assert history.history["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert history.history["accuracy"][0] == pytest.approx(accuracy)
    assert history.history["recall"][0] == pytest.approx(recall)


@pytest.mark.parametrize(
    ("loss", "outputs", "labels"),
    [
        ("binary_crossentropy", 1, lambda y: y % 2),
        ("binary_crossentropy", 3, lambda y: np.eye(3)[y]),
        ("categorical_crossentropy", 3, lambda y: np.eye(3)[y]),
        ("mean_squared_error", 1, lambda y: y % 2),
        ("mse", 3, lambda y: np.eye(3)[y]),
    ],
)
def test_accuracy_fits_loss_and_labels(loss: str, outputs: int, labels: Any) -> None:
    x, y = blobs(80)
    target = labels(y)
    model = tilefuse.Sequential([tilefuse.Input((8,)), layers.Dense(outputs, "sigmoid")])
    model.compile("adam", loss, metrics=["acc"])
    results = model.evaluate(x, target, verbose=0, return_dict=True)
    p = model.predict(x)
    right = (p[:, 0] > 0.5) == target if outputs == 1 else p.argmax(axis=1) == y
    assert results["acc"] == pytest.approx(right.mean())


def test_accuracy_of_binary_logits_is_that_of_the_probability() -> None:
    x, y = blobs(80)
    model = tilefuse.Sequential([tilefuse.Input((8,)), layers.Dense(1)])
    model.compile("adam", tilefuse.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    accuracy = model.evaluate(x, y % 2, verbose=0)[1]
    assert accuracy == pytest.approx(((model.predict(x)[:, 0] > 0) == y % 2).mean())


def test_shuffle_off_keeps_the_order() -> None:
    x, y = blobs(64)
    a, b = classifier("sgd"), classifier("sgd")
    a.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    for start in range(0, 64, 16):
        b.train_on_batch(x[start : start + 16], y[start : start + 16])
    for u, v in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-7)


def test_each_epoch_has_an_order_of_its_own_that_follows_from_the_seed() -> None:
    x, y = blobs(64)
    a, b, c = classifier(), classifier(), classifier(seed=2)
    c.set_weights(a.get_weights())
    a.fit(x, y, epochs=2, verbose=0)
    b.fit(x, y, verbose=0)
    b.fit(x, y, verbose=0)
    c.fit(x, y, epochs=2, verbose=0)
    assert same_weights(a, b)
    assert not same_weights(a, c)


def test_train_and_test_on_batch() -> None:
    x, y = blobs(32)
    model = classifier()
    before = model.test_on_batch(x, y)
    assert model.train_on_batch(x, y) == pytest.approx(before, rel=1e-5)
    assert model.optimizer.iterations == 1
    assert model.test_on_batch(x, y, return_dict=True)["loss"] < before[0]


def test_initial_epoch_counts_on() -> None:
    x, y = blobs(32)
    history = classifier().fit(x, y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]


def test_frozen_layers_stay() -> None:
    x, y = blobs()
    model = classifier()
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    after = model.get_weights()
    assert [np.array_equal(u, v) for u, v in zip(before, after, strict=True)] == [True, True, False, False]
    assert [w.path for w in model.trainable_weights] == ["dense_1/kernel", "dense_1/bias"]
    assert [w.path for w in model.non_trainable_weights] == ["dense/kernel", "dense/bias"]
    model.trainable = True
    model.fit(x, y, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_new_head_on_trained_layers() -> None:
    x, y = blobs()
    base = classifier()
    base.fit(x, y, epochs=3, verbose=0)
    for layer in base.layers:
        layer.trainable = False
    model = tilefuse.Sequential([*base.layers[:-1], layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    before = base.get_weights()
    model.fit(x, y == 0, epochs=3, verbose=0)
    assert same_weights(base, base)
    for u, v in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(u, v)


def test_regularizers_add_to_the_loss() -> None:
    x, y = blobs()
    penalty = tilefuse.regularizers.L1L2(0.01, 0.02)
    model = tilefuse.Sequential(
        [tilefuse.Input((8,)), layers.Dense(3, "softmax", kernel_regularizer=penalty, bias_regularizer="l2")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    w = model.layers[0].kernel.value
    expected = 0.01 * abs(w).sum() + 0.02 * (w * w).sum() + 0.01 * 14
    plain = tilefuse.losses.SparseCategoricalCrossentropy()(y, model(x))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(float(plain) + expected, rel=1e-5)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, bool])
def test_inputs_are_converted(dtype: Any) -> None:
    x, y = blobs(40)
    other = (10 * abs(x)).astype(dtype)
    model = classifier()
    np.testing.assert_array_equal(model.predict(other), model.predict(other.astype(np.float32)))
    model.fit(other, y.astype(np.float64), verbose=0)


def test_inputs_of_other_kinds() -> None:
    class Interface:
        def __init__(self, array: np.ndarray) -> None:
            self.__array_interface__ = array.__array_interface__
            self.array = array

    class DLPack:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **kwargs: Any) -> Any:
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    x, y = blobs(40)
    model = classifier()
    expected = model.predict(x)
    for other in (Interface(x), DLPack(x), x.tolist(), np.asfortranarray(x), x[::-1][::-1]):
        np.testing.assert_array_equal(model.predict(other), expected)
    model.fit(DLPack(x), Interface(y), verbose=0)


def test_labels_of_one_column() -> None:
    x, y = blobs(40)
    a, b = classifier(), classifier()
    a.fit(x, y, verbose=0)
    b.fit(x, y[:, None], verbose=0)
    assert same_weights(a, b)


def test_program_can_be_printed() -> None:
    model = classifier(dropout=0.2)
    text = str(model.program)
    assert "dense" in text
    assert model.program.bytes > 0
    assert model.program.stages


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_same_bits_for_any_number_of_threads(optimizer: str, set_num_threads: Any) -> None:
    x, y = blobs(150, features=70)
    trained = []
    for threads in (1, 2, 3, 1):
        set_num_threads(threads)
        model = classifier(OPTIMIZERS[optimizer], dropout=0.3, features=70)
        model.fit(x, y, epochs=2, verbose=0)
        trained.append(model)
    assert all(same_weights(trained[0], model) for model in trained[1:])


def test_same_bits_of_a_larger_network(set_num_threads: Any) -> None:
    x, y = blobs(320 if tilefuse.get_device() == "cpu" else 40, features=784, classes=10)
    trained = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        tilefuse.seed(0)
        model = tilefuse.Sequential(
            [layers.Dense(128, "relu"), layers.Dropout(0.2), layers.Dense(10, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=2, verbose=0)
        trained.append(model)
    assert all(same_weights(trained[0], model) for model in trained[1:])
    assert trained[0].predict(x).tobytes() == trained[2].predict(x).tobytes()


# Members add up parts of the inputs each, of which the last is the shortest.
@pytest.mark.parametrize(("features", "units"), [(769, 384), (1000, 300), (1537, 500)])
def test_same_bits_where_members_share_sums(features: int, units: int, set_num_threads: Any) -> None:
    x, y = blobs(256, features=features, classes=10)
    predicted = []
    for threads in (1, 2, 4, 4):
        set_num_threads(threads)
        tilefuse.seed(0)
        model = tilefuse.Sequential([layers.Dense(units, "relu"), layers.Dense(10, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=256, epochs=2, verbose=0)
        predicted.append(model.predict(x, batch_size=256).tobytes())
    assert len(set(predicted)) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on; what the test is about
def test_training_in_a_forked_child() -> None:
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)  # the parent's threads exist
    expected = classifier()
    expected.fit(x, y, epochs=2, verbose=0)
    child = os.fork()
    if child == 0:
        try:
            model.fit(x, y, verbose=0)
            os._exit(0 if same_weights(model, expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_two_threads_train_two_models() -> None:
    x, y = blobs(400)
    models, expected = [classifier(), classifier("sgd")], [classifier(), classifier("sgd")]
    epochs = 20 if tilefuse.get_device() == "cpu" else 4
    threads = [
        threading.Thread(target=lambda m: m.fit(x, y, epochs=epochs, verbose=0), args=(model,))
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model, alone in zip(models, expected, strict=True):
        alone.fit(x, y, epochs=epochs, verbose=0)
        assert same_weights(model, alone)


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = blobs(64)
    model = classifier()
    model.fit(x, y, epochs=2)  # not a terminal: one line an epoch
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2/2")
    for part in ("steps/s", "loss ", "accuracy "):
        assert part in lines[1]
    model.fit(x, y, verbose=0)
    assert capsys.readouterr().out == ""
    model.fit(x, y, verbose=1)
    assert "Epoch 1/1: 100%" in capsys.readouterr().out
    model.evaluate(x, y)
    assert capsys.readouterr().out.startswith("Evaluation: loss")


def test_a_step_is_one_parallel_region_and_an_epoch_one_call() -> None:
    from tilefuse import _core

    x, y = blobs(320)
    model = classifier(dropout=0.2)
    model.fit(x, y, verbose=0)
    before = _core.counters()["parallel_regions"]
    model.fit(x, y, epochs=1, verbose=0)
    steps = 10
    assert _core.counters()["parallel_regions"] - before <= steps


def test_history_plot(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    x, y = blobs(64)
    history = classifier().fit(x, y, epochs=2, validation_split=0.2, verbose=0)
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_ylabel() for axes in panels] == ["loss", "accuracy"]
    assert [line.get_label() for line in panels[0].lines] == ["training", "validation"]
    with pytest.raises(ValueError, match="nothing to plot"):
        callbacks.History().plot()


@pytest.mark.parametrize("batch", [2, 32, 200])
def test_bfloat16_steps_have_the_same_bits_for_any_number_of_threads(
    device: str, batch: int, set_num_threads
) -> None:
    rng = np.random.default_rng(batch)
    x, y = rng.standard_normal((batch, 301)).astype(np.float32), rng.integers(0, 10, batch)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        tilefuse.set_precision("bfloat16")
        try:
            model = tilefuse.Sequential(
                [tilefuse.Input((301,)), layers.Dense(130, "relu"), layers.Dense(67), layers.Dense(10)]
            )
        finally:
            tilefuse.set_precision("float32")
        source = np.random.default_rng(1)
        model.set_weights(
            [0.1 * source.standard_normal(w.shape).astype(np.float32) for w in model.get_weights()]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        losses = [model.train_on_batch(x, y) for _ in range(3)]
        results.append([np.ravel(losses), *model.get_weights()])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            assert np.array_equal(one, another)


@pytest.mark.parametrize("precision", ["ieee", "bfloat16", "split", "tf32", "float16"])
def test_precision_of_a_model(device: str, precision: str) -> None:
    if device == "cpu" and precision in ("split", "tf32", "float16"):
        pytest.skip(f"{precision} is for CUDA devices")
    tilefuse.set_precision(precision)
    try:
        model = tilefuse.Sequential([tilefuse.Input((40,)), layers.Dense(50, use_bias=False)])
    finally:
        tilefuse.set_precision("float32")
    assert model.precision == precision
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((64, n)).astype(np.float32) for n in (40, 50))
    (w,) = model.get_weights()
    predicted = model.predict(x)
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(predicted, tilefuse.ops.matmul(x, w, precision=precision), **close)
    assert (abs(predicted - x @ w).max() > 1e-4) == (precision in ("bfloat16", "tf32", "float16"))

    model.compile(tilefuse.optimizers.SGD(0.5), "mse")
    model.train_on_batch(x, y)
    gradient = 2 * (predicted - y) / y.size
    change = tilefuse.ops.matmul(x, gradient, transpose_a=True, precision=precision)
    np.testing.assert_allclose(w - model.get_weights()[0], 0.5 * change, rtol=1e-3, atol=3e-6)


def test_precision_that_a_device_does_not_have(device: str) -> None:
    model = tilefuse.Sequential([tilefuse.Input((4,)), layers.Dense(5)])
    model.precision = "double"
    with pytest.raises(ValueError, match=f"which device '{device}.* does not have. Set .* 'float32'"):
        model.predict(np.ones((2, 4), np.float32))
    model.precision = "float64"  # of weights that were made in float32
    assert model.predict(np.ones((2, 4), np.float32)).dtype == np.float32


def test_float64_model() -> None:
    tilefuse.set_precision("float64")
    try:
        model = classifier()
    finally:
        tilefuse.set_precision("float32")
    x, y = blobs(40)
    model.fit(x, y, verbose=0)
    assert model.predict(x).dtype == np.float64
    assert {w.dtype for w in model.weights} == {np.dtype(np.float64)}
