import numpy as np
import pytest
from helpers.gradients import assert_gradient, numerical_gradient
from tilefuse import reference as ref
from tilefuse.reference.dropout import dropout_mask, philox4x32

ONES = 0xFFFFFFFF
# Known answers that come with the library of Salmon et al., SC11; the last inputs are digits of pi
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, expected):
    assert tuple(int(word) for word in philox4x32(counter, key, xp=np)) == expected


def test_elements_of_a_group_use_words_in_the_documented_order():
    seed, step, rate = 0x0123456789ABCDEF, 0xFEDCBA9876543210, 0.3
    mask = dropout_mask(200, rate, seed=seed, step=step, xp=np)
    for e in range(200):
        g, r = divmod(e, 64)
        word, lane = divmod(r, 16)
        counter = (16 * g + lane, 0, step & ONES, step >> 32)
        output = philox4x32(counter, (seed & ONES, seed >> 32), xp=np)
        assert mask[e] == (int(output[word]) >= int(rate * 2**32))


def test_share_dropped():
    mask = dropout_mask(100_000, 0.2, seed=1, step=2, xp=np)
    assert abs(mask.mean() - 0.8) < 0.005  # four standard deviations


def test_mask_is_a_function_of_seed_and_step():
    first = dropout_mask(1000, 0.5, seed=1, step=1, xp=np)
    assert (first == dropout_mask(2000, 0.5, seed=1, step=1, xp=np)[:1000]).all()
    for seed, step in [(2, 1), (1, 2), (1 + 2**32, 1), (1, 1 + 2**32)]:
        assert 350 < np.count_nonzero(first == dropout_mask(1000, 0.5, seed=seed, step=step, xp=np)) < 650


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_backward(dtype):
    x = np.arange(1, 13, dtype=dtype).reshape(3, 4)
    y, mask = ref.dropout(x, 0.5, seed=7)
    assert y.dtype == dtype
    assert mask.dtype == np.bool_
    assert (y == np.where(mask, 2 * x, 0)).all()
    dy = x[::-1]
    dx = ref.dropout_backward(dy, mask, 0.5)
    assert dx.dtype == dtype
    if dtype == np.float64:
        assert_gradient(dx, numerical_gradient(lambda x: ref.dropout(x, 0.5, seed=7)[0], x, dy))


def test_rate():
    x = np.ones(100)
    y, mask = ref.dropout(x, 0.0)
    assert mask.all()
    assert (y == 1).all()
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="rate"):
            ref.dropout(x, rate)
