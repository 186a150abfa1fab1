import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pool_size": 3, "strides": 1, "padding": "same"},
        {"pool_size": (2, 3), "strides": (3, 2), "padding": 1},
    ],
    ids=str,
)
def test_backward_is_the_derivative(name, how):
    rng = np.random.default_rng(1)
    forward, backward = getattr(ref, name), getattr(ref, f"{name}_backward")
    x = rng.permutation(2 * 5 * 6 * 2).reshape(2, 5, 6, 2) / 10  # no two elements nearly equal
    dy = rng.standard_normal(forward(x, **how).shape)
    assert_gradient(backward(dy, x, **how), numerical_gradient(lambda x: forward(x, **how), x, dy))


def test_counted_padding_and_whole_images():
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, 5, 6, 2)), rng.standard_normal((2, 3, 3, 2))
    how = {"pool_size": 3, "strides": 2, "padding": "same", "count_padding": True}
    dx = ref.avg_pool2d_backward(dy, x, **how)
    assert_gradient(dx, numerical_gradient(lambda x: ref.avg_pool2d(x, **how), x, dy))
    dy = rng.standard_normal((2, 2))
    assert_gradient(ref.global_avg_pool2d_backward(dy, x), numerical_gradient(ref.global_avg_pool2d, x, dy))


def test_values():
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    assert ref.max_pool2d(x, padding="same").ravel().tolist() == [4, 5, 7, 8]
    assert ref.avg_pool2d(x, padding="same").ravel().tolist() == [2, 3.5, 6.5, 8]
    assert ref.avg_pool2d(x, padding="same", count_padding=True).ravel().tolist() == [2, 1.75, 3.25, 2]
    assert ref.global_avg_pool2d(x).tolist() == [[4]]
