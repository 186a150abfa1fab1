import numpy as np
import pytest
from tilefuse import reference as ref


def test_value():
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    b = np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    assert ref.matmul(a, b).tolist() == [[5, 2, -1], [11, 4, -3]]
    assert ref.matmul(a, b, bias=np.array([0.0, -4.0, 1.0]), activation="relu").tolist() == [
        [5, 0, 0],
        [11, 0, 0],
    ]


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_transposes_and_broadcasting(transpose_a, transpose_b):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 1, 2, 3)), rng.standard_normal((5, 3, 6))
    given_a = a.swapaxes(-1, -2) if transpose_a else a
    given_b = b.swapaxes(-1, -2) if transpose_b else b
    c = ref.matmul(given_a, given_b, transpose_a=transpose_a, transpose_b=transpose_b)
    np.testing.assert_allclose(c, np.einsum("xyik,ykj->xyij", a, b), rtol=1e-13)


def test_out_and_beta():
    a, b = np.ones((2, 3)), np.ones((3, 2))
    out = np.full((2, 2), np.nan)
    assert ref.matmul(a, b, out=out) is out
    assert out.tolist() == [[3, 3], [3, 3]]
    ref.matmul(a, b, out=out, beta=2.0)
    assert out.tolist() == [[9, 9], [9, 9]]
    with pytest.raises(ValueError, match="needs out"):
        ref.matmul(a, b, beta=1.0)
