import numpy as np
import pytest
from helpers.arrays import LAYOUTS, Guarded, normal
from helpers.compare import assert_close, assert_same_bits
from tilefuse import reference as ref

DTYPES = [np.float32, np.float64]
SHAPES = [(0,), (), (1,), (7,), (8,), (5, 9), (33,), (64,), (3, 67), (1031,), (784, 10)]

# name, how many lists of slots, options
STEPS = [
    ("sgd_step", 0, {}),
    ("sgd_step", 0, {"learning_rate": 0.3, "weight_decay": 0.1}),
    ("momentum_step", 1, {}),
    ("momentum_step", 1, {"nesterov": True, "momentum": 0.7, "weight_decay": 0.1}),
    ("adagrad_step", 1, {}),
    ("adagrad_step", 1, {"learning_rate": 0.1, "epsilon": 1e-3, "weight_decay": 0.1}),
    ("rmsprop_step", 1, {}),
    ("rmsprop_step", 2, {"momentum": 0.8, "rho": 0.7, "weight_decay": 0.1}),
    ("rmsprop_step", 3, {"momentum": 0.8, "epsilon": 1e-3}),
    ("rmsprop_step", -3, {"epsilon": 1e-3}),  # mean gradients, no velocities
    ("adam_step", 2, {"step": 1}),
    ("adam_step", 2, {"step": 7, "learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    ("adam_step", 2, {"step": 1_000_000, "weight_decay": 0.1}),
    ("adam_step", 3, {"step": 3}),
    ("adamw_step", 2, {"step": 2}),
    ("adamw_step", 3, {"step": 2, "weight_decay": 0.1}),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(STEPS)]
all_steps = pytest.mark.parametrize(("name", "slots", "options"), STEPS, ids=IDS)


def problem(slots, dtype, shapes=SHAPES, seed=0):
    """Parameters, gradients and state."""
    rng = np.random.default_rng(seed)
    params, grads = ([normal(rng, s, dtype) for s in shapes] for _ in range(2))
    state = [
        [np.asarray(np.abs(normal(rng, s, dtype)) + dtype(0.5)) for s in shapes] for _ in range(abs(slots))
    ]
    if abs(slots) == 3:  # the third of rmsprop is a mean gradient: its square stays below the mean square
        state[2] = [np.asarray(np.sqrt(x) / 4) for x in state[0]]
    if slots == -3:
        state[1] = None
    return params, grads, state


def copied(lists, dtype):
    return [None if arrays is None else [x.astype(dtype) for x in arrays] for arrays in lists]


@all_steps
@pytest.mark.parametrize("dtype", DTYPES)
def test_step(ops, name, slots, options, dtype):
    params, grads, state = problem(slots, dtype)
    before = copied([params, *state], np.float64)
    exact = copied([params, grads, *state], np.float64)
    getattr(ref, name)(*exact, **options)
    grads_before = [g.copy() for g in grads]
    assert getattr(ops, name)(params, grads, *state, **options) is None
    for g, g_before in zip(grads, grads_before, strict=True):
        assert_same_bits(g, g_before)
    for actual, start, expected in zip([params, *state], before, [exact[0], *exact[2:]], strict=True):
        if actual is None:
            continue
        for a, s, e, g in zip(actual, start, expected, grads, strict=True):
            assert a.dtype == dtype
            assert_close(a, e, magnitude=np.abs(s) + np.abs(e) + np.abs(g) + np.abs(g * g))


@all_steps
def test_nothing_else_is_written(ops, name, slots, options):
    shapes = [(1,), (7,), (33,), (5, 9)]
    params, grads, state = problem(slots, np.float32, shapes)
    guarded = []

    def guard(arrays):
        if arrays is None:
            return None
        copies = [Guarded(x.shape, x.dtype) for x in arrays]
        for copy, x in zip(copies, arrays, strict=True):
            copy.array[...] = x
        guarded.extend(copies)
        return [copy.array for copy in copies]

    getattr(ops, name)(guard(params), guard(grads), *map(guard, state), **options)
    for array in guarded:
        array.check()


@all_steps
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(ops, set_num_threads, name, slots, options, dtype):
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        params, grads, state = problem(slots, dtype, [(501, 303), (7,), (100_003,)])
        getattr(ops, name)(params, grads, *state, **options)
        results.append([x for arrays in [params, *state] if arrays is not None for x in arrays])
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            assert_same_bits(actual, expected)


@all_steps
def test_nan_and_infinity(ops, name, slots, options):
    params, grads, state = problem(slots, np.float64, [(9,)])
    grads[0][0], grads[0][1], params[0][2] = np.nan, np.inf, np.nan
    exact = copied([params, grads, *state], np.float64)
    with np.errstate(all="ignore"):
        getattr(ref, name)(*exact, **options)
    getattr(ops, name)(params, grads, *state, **options)
    assert_close(
        params[0], exact[0][0], magnitude=np.abs(np.nan_to_num(exact[0][0], posinf=0, neginf=0)) + 10
    )


@all_steps
def test_empty_lists(ops, name, slots, options):
    getattr(ops, name)([], [], *[[] for _ in range(abs(slots))], **options)


@all_steps
def test_bad_arguments(ops, name, slots, options):
    step = getattr(ops, name)
    params, grads, state = problem(slots, np.float32, [(3, 4), (5,)])
    with pytest.raises(ValueError, match=r"(?s)grads.*2|2.*grads"):
        step(params, grads[:1], *state, **options)
    with pytest.raises(ValueError, match=r"(?s)\(4, 3\)"):
        step(params, [grads[0].T, grads[1]], *state, **options)
    with pytest.raises(TypeError, match=r"(?s)float64"):
        step(params, [g.astype(np.float64) for g in grads], *state, **options)
    with pytest.raises(TypeError, match=r"(?s)int32.*float32"):
        step([p.astype(np.int32) for p in params], grads, *state, **options)
    params[0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        step(params, grads, *state, **options)


def test_scalars_cannot_be_updated(ops):
    with pytest.raises(ValueError, match=r"params\[0\] is read-only: pass a writeable array"):
        ops.sgd_step([np.float32(1)], [np.float32(1)])


def test_arrays_that_are_not_contiguous(ops):
    """What is updated in place is refused rather than copied; gradients may have any layout."""
    base = np.ones((6, 8), np.float32)
    grads = [LAYOUTS["strided"](np.ones((6, 4), np.float32))]
    with pytest.raises(ValueError, match=r"params\[0\].*contiguous"):
        ops.sgd_step([base[:, ::2]], grads)
    assert (base == 1).all()
    for layout in LAYOUTS.values():
        params = [np.ones((6, 4), np.float32)]
        ops.sgd_step(params, [layout(grads[0])], learning_rate=0.5)
        assert (params[0] == 0.5).all()


def test_step_counts_from_one(ops):
    x = [np.ones(3, np.float32)]
    with pytest.raises(ValueError, match=r"step.*0"):
        ops.adam_step(x, x, x, x, step=0)


def test_rmsprop_momentum_needs_velocities(ops):
    params, grads, state = problem(1, np.float32, [(3,)])
    with pytest.raises(ValueError, match="velocities"):
        ops.rmsprop_step(params, grads, *state, momentum=0.9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["clip_by_value", "clip_by_norm", "clip_by_global_norm"])
@pytest.mark.parametrize("limit", [0.1, 1.0, 40.0, 1e6])
def test_clipping(ops, name, limit, dtype):
    _, grads, _ = problem(0, dtype)
    exact = copied([grads], np.float64)[0]
    expected = getattr(ref, name)(exact, limit)
    result = getattr(ops, name)(grads, limit)
    assert (result is None) == (expected is None)
    if expected is not None:
        assert float(result) == pytest.approx(expected, rel=float(8 * np.finfo(dtype).eps))
    for actual, value in zip(grads, exact, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, value, terms=16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["clip_by_value", "clip_by_norm", "clip_by_global_norm"])
def test_clipping_nan_and_zeros(ops, name, dtype):
    grads = [np.zeros(9, dtype), np.array([1.0, np.nan, 3.0], dtype)]
    exact = copied([grads], np.float64)[0]
    getattr(ref, name)(exact, 2.0)
    getattr(ops, name)(grads, 2.0)
    for actual, value in zip(grads, exact, strict=True):
        assert_close(actual, value)


@pytest.mark.parametrize("name", ["clip_by_norm", "clip_by_global_norm"])
def test_clipping_has_the_same_bits_for_any_number_of_threads(ops, set_num_threads, name):
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        _, grads, _ = problem(0, np.float32, [(501, 303), (7,), (100_003,)])
        getattr(ops, name)(grads, 1.0)
        results.append(grads)
    for result in results[1:]:
        for actual, expected in zip(result, results[0], strict=True):
            assert_same_bits(actual, expected)


@pytest.mark.parametrize("name", ["clip_by_value", "clip_by_norm", "clip_by_global_norm"])
@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan])
def test_bad_limit(ops, name, limit):
    with pytest.raises(ValueError, match="limit"):
        getattr(ops, name)([np.ones(3, np.float32)], limit)
