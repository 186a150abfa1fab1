"""Optimizers: the numerics and the state dicts of torch.optim."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tilefuse.torch as tt  # noqa: E402
from tilefuse.interop.torch import optimizers  # noqa: E402

RULES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "maximize": True, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"betas": (0.8, 0.9), "eps": 1e-2, "amsgrad": True}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-2, "momentum": 0.9}),
    ("RMSprop", {"centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-2}),
]
of_rules = pytest.mark.parametrize(("name", "options"), RULES, ids=str)


def parameters(dtype: Any = torch.float64) -> list[Any]:
    """Of several shapes; one lies in memory as the weights of `Conv2d` do."""
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=random, dtype=dtype) for shape in ((5, 7), (3,), (), (4, 2, 3, 3))]
    made[-1] = made[-1].permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    return [torch.nn.Parameter(p) for p in made]


def train(optimizer: Any, steps: int, start: int = 0) -> list[Any]:
    """Steps with gradients that depend on the weights, the learning rate falling."""
    for i in range(start, start + steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + i)
            for k, p in enumerate(group["params"]):
                p.grad = None if (i + k) % 7 == 0 else torch.sin(3 * p.detach() + i)
        optimizer.step()
    return [p for group in optimizer.param_groups for p in group["params"]]


def assert_same(ours: list[Any], theirs: list[Any], tolerance: float = 1e-12) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@of_rules
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_steps(name: str, options: dict[str, Any], dtype: Any) -> None:
    ours = train(getattr(tt, name)(parameters(dtype), lr=0.1, **options), 20)
    theirs = train(getattr(torch.optim, name)(parameters(dtype), lr=0.1, **options), 20)
    assert_same(ours, theirs, 1e-12 if dtype == torch.float64 else 2e-5)


@of_rules
@pytest.mark.parametrize("ours_first", [True, False])
def test_state_goes_over(name: str, options: dict[str, Any], ours_first: bool) -> None:
    kinds = (tt, torch.optim) if ours_first else (torch.optim, tt)
    expected = train(getattr(torch.optim, name)(parameters(), lr=0.1, **options), 12)
    first = getattr(kinds[0], name)(parameters(), lr=0.1, **options)
    train(first, 6)
    second = getattr(kinds[1], name)(
        [torch.nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]]
    )
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert_same(train(second, 6, start=6), expected)


def test_defaults_are_those_of_pytorch() -> None:
    for name in optimizers.__all__:
        ours, theirs = getattr(tt, name)(parameters()), getattr(torch.optim, name)(parameters())
        assert ours.defaults == theirs.defaults
        assert isinstance(ours, torch.optim.Optimizer)


def test_groups_closure_schedule_and_copies() -> None:
    w, b = parameters()[:2]
    optimizer = tt.Adam([{"params": [w]}, {"params": [b], "lr": 0.5}], lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (w**2).sum() + (b**2).sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(5)]
    assert losses[-1] < losses[0]
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.25]
    again = copy.deepcopy(optimizer)
    train(again, 1, start=1)
    assert not torch.equal(again.param_groups[0]["params"][0], w)


def test_parameters_that_move() -> None:
    """A parameter's memory may be replaced between two steps."""
    results = []
    for kind in (tt, torch.optim):
        made = parameters()
        optimizer = kind.Adam(made, lr=0.1)
        train(optimizer, 3)
        for p in made:
            p.data = p.data.clone(memory_format=torch.contiguous_format)
        results.append(train(optimizer, 3, start=3))
    assert_same(*results)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (
            lambda: torch.zeros(3, dtype=torch.bfloat16),
            "of torch.bfloat16.*expected dense tensors of float32",
        ),
        (lambda: torch.zeros(6)[::2], r"has strides \(2,\), with gaps"),
    ],
)
def test_parameters_that_do_not_do(p: Any, message: str) -> None:
    parameter = torch.nn.Parameter(p())
    parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(TypeError, match=message):
        tt.SGD([parameter]).step()


def test_no_gradient_through_a_step() -> None:
    with pytest.raises(ValueError, match="differentiable is True"):
        tt.SGD(parameters(), differentiable=True)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_gradients_that_were_scaled(name: str) -> None:
    results = []
    for kinds in (torch.optim, tt):
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = getattr(kinds, name)([p], lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (1.0, float("inf"), 2.0):
            optimizer.zero_grad()
            scaler.scale((p * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(p.detach())
    torch.testing.assert_close(results[1], results[0])
