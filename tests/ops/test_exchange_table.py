"""Arrays of a library that has DLPack's exchange table in C, other than PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.calls import DIRECT, W, X, as_tuple, each
from helpers.compare import assert_same
from helpers.dlpack import CUDA, IS_COPIED, READ_ONLY, tabled
from tilefuse import ops
from tilefuse import reference as ref


def test_calls_go_directly() -> None:
    kind = tabled()
    y = ops.matmul(kind(X), kind(W))
    assert type(y) is kind
    assert_same(y.array, X @ W)
    assert kind.calls == ["view", "view", "object_of"]


@pytest.mark.parametrize("name", [name for name in DIRECT if name != "softmax_cross_entropy"])
def test_every_direct_op(name: str) -> None:
    kind = tabled()
    args, options = DIRECT[name]
    results = as_tuple(getattr(ops, name)(*each(args, kind), **each(options, kind)))
    for result, right in zip(results, as_tuple(getattr(ops, name)(*args, **options)), strict=True):
        assert type(result) is kind
        assert_same(result.array, right)
    if name != "batch_norm":  # which asks whether it may write to the moving averages
        assert "managed_of" not in kind.calls


def test_layouts() -> None:
    kind = tabled()
    across, backwards = X.T.copy().T, X[::-1, ::-1].copy()[::-1, ::-1]
    for given in (kind(X, strides=None), kind(X, byte_offset=64), kind(across), kind(backwards)):
        assert_same(ops.matmul(given, kind(W)).array, X @ W)
        assert_same(ops.relu(given).array, ref.relu(X))
    assert_same(ops.matmul(kind(X[:0]), kind(W)).array, X[:0] @ W)
    assert_same(ops.relu(kind(X[:0], null=True)).array, X[:0])


def test_out() -> None:
    kind = tabled()
    out = np.zeros((7, 3), np.float32)
    given = kind(out)
    assert ops.matmul(kind(X), kind(W), out=given) is given
    assert_same(out, X @ W)
    assert given.producer.deleted == 1
    for flags in (READ_ONLY, READ_ONLY | IS_COPIED):
        refused = kind(np.zeros((7, 3), np.float32), flags=flags)
        with pytest.raises((TypeError, ValueError), match=r"read-only|copy"):
            ops.matmul(kind(X), kind(W), out=refused)
        assert refused.producer.deleted == 2  # asked once directly, once through Python


def test_tables_that_lack_something() -> None:
    for kind in (tabled(view=False), tabled(fails=True)):
        x = kind(X)
        y = ops.relu(x)
        assert_same(y.array, ref.relu(X))
        assert x.producer.deleted == 1


def test_versions() -> None:
    older = tabled()
    newer = tabled(version=2, older=older)
    y = ops.relu(newer(X))
    assert_same(y.array, ref.relu(X))
    assert older.calls
    assert not newer.calls
    with pytest.raises(AssertionError, match="there is a table"):
        ops.relu(tabled(version=2)(X))  # none that we know: as if there were none


def test_what_is_refused_is_given_back() -> None:
    kind = tabled()
    for how, message in (
        ({"null": True}, "no memory"),
        ({"device": (7, 0)}, "device type 7"),
        ({"flags": IS_COPIED}, "hand over a copy"),
        ({"code": 0}, "dtype int32; expected float32"),
    ):
        x = kind(X, **how)
        if "flags" in how:
            assert_same(ops.relu(x).array, ref.relu(X))  # what a view shows is no copy
            continue
        with pytest.raises(TypeError, match=message):
            ops.relu(x)
        assert x.producer.deleted == 1
    with pytest.raises(TypeError, match="in a GPU's memory"):
        ops.relu(kind(X, device=(CUDA, 0)))


def test_two_libraries() -> None:
    """The first one's kind of result, through Python."""
    first, second = tabled(), tabled()
    y = ops.matmul(first(X), second(W))
    assert type(y) is first
    assert_same(y.array, X @ W)
    assert second.calls == ["managed_of"]
