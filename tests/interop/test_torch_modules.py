"""Modules and `replace_modules`: equal to those of torch.nn, alone and in whole networks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import tilefuse.torch as tt  # noqa: E402
from tilefuse.interop.torch import functions  # noqa: E402
from tilefuse.interop.torch.replace import Fused  # noqa: E402
from torch import nn  # noqa: E402


def image(*shape: int) -> Any:
    return torch.randn(*(shape or (2, 4, 7, 6)), generator=torch.Generator().manual_seed(3))


def same(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def assert_same_training(theirs: nn.Module, ours: nn.Module, x: Any, tolerance: float = 1e-5) -> None:
    """Equal outputs, gradients at the input and the parameters, and buffers."""
    results = []
    for module in (theirs, ours):
        inputs = x.clone().requires_grad_()
        y = module(inputs)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
        y.backward(dy)
        results.append([y, inputs.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    for a, b in zip(*results, strict=True):
        same(b, a, tolerance)


MODULES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "Linear": ("Linear", {"in_features": 6, "out_features": 5}, (2, 3, 6)),
    "Linear no bias": ("Linear", {"in_features": 6, "out_features": 5, "bias": False}, (4, 6)),
    "Conv2d": ("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, (2, 4, 7, 6)),
    "Conv2d groups": (
        "Conv2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": (3, 2),
            "groups": 2,
            "padding": (2, 1),
            "bias": False,
        },
        (2, 4, 7, 6),
    ),
    "Conv2d same": (
        "Conv2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 4, "padding": "same", "dilation": 2},
        (2, 4, 9, 8),
    ),
    "Conv2d one image": (
        "Conv2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2},
        (4, 7, 6),
    ),
    "MaxPool2d": ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 4, 7, 6)),
    "AvgPool2d": ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 4, 7, 6)),
    "AvgPool2d counts": (
        "AvgPool2d",
        {"kernel_size": (3, 2), "padding": 1, "count_include_pad": False},
        (2, 4, 7, 6),
    ),
    "AdaptiveAvgPool2d": ("AdaptiveAvgPool2d", {"output_size": 1}, (2, 4, 7, 6)),
    "BatchNorm2d": ("BatchNorm2d", {"num_features": 4}, (2, 4, 7, 6)),
    "BatchNorm2d cumulative": (
        "BatchNorm2d",
        {"num_features": 4, "momentum": None, "affine": False},
        (2, 4, 7, 6),
    ),
    "BatchNorm2d no statistics": (
        "BatchNorm2d",
        {"num_features": 4, "track_running_stats": False},
        (2, 4, 7, 6),
    ),
    "BatchNorm1d": ("BatchNorm1d", {"num_features": 4}, (5, 4)),
    "BatchNorm1d sequence": ("BatchNorm1d", {"num_features": 4}, (5, 4, 3)),
    "LayerNorm": ("LayerNorm", {"normalized_shape": 6}, (2, 3, 6)),
    "LayerNorm axes": ("LayerNorm", {"normalized_shape": (3, 6), "bias": False}, (2, 3, 6)),
    "LayerNorm plain": ("LayerNorm", {"normalized_shape": 6, "elementwise_affine": False}, (2, 3, 6)),
    "RMSNorm": ("RMSNorm", {"normalized_shape": 6}, (2, 3, 6)),
    "ReLU": ("ReLU", {}, (2, 4, 7, 6)),
    "LeakyReLU": ("LeakyReLU", {"negative_slope": 0.1}, (5, 4)),
    "ELU": ("ELU", {"alpha": 0.5}, (5, 4)),
    "SELU": ("SELU", {}, (5, 4)),
    "GELU": ("GELU", {}, (5, 4)),
    "GELU tanh": ("GELU", {"approximate": "tanh"}, (5, 4)),
    "SiLU": ("SiLU", {}, (5, 4)),
    "Sigmoid": ("Sigmoid", {}, (5, 4)),
    "Tanh": ("Tanh", {}, (5, 4)),
    "Softplus": ("Softplus", {}, (5, 4)),
    "Softmax": ("Softmax", {"dim": 1}, (2, 4, 6)),
    "LogSoftmax": ("LogSoftmax", {"dim": -1}, (2, 4, 6)),
}


def pair_of(case: str) -> tuple[nn.Module, nn.Module, Any]:
    """PyTorch's module, ours with the same weights, and an input."""
    name, options, shape = MODULES[case]
    theirs, ours = getattr(nn, name)(**options), getattr(tt, name)(**options)
    for parameter in theirs.parameters():  # norms would start as ones and zeros
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, image(*shape)


@pytest.mark.parametrize("case", MODULES)
def test_module(case: str) -> None:
    theirs, ours, x = pair_of(case)
    assert_same_training(theirs, ours, x)
    theirs.eval(), ours.eval()
    assert_same_training(theirs, ours, x)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, type(theirs))
    theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("case", ["Conv2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d", "ReLU"])
def test_channels_last_stays(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours, x = pair_of(case)
    x = x.contiguous(memory_format=torch.channels_last)
    seen: list[Any] = []
    for name in ("conv2d", "max_pool2d", "avg_pool2d", "batch_norm", "relu"):
        function = getattr(functions, name)
        monkeypatch.setattr(
            functions, name, lambda x, *a, f=function, **k: (seen.append(x), f(x, *a, **k))[1]
        )
    y = ours(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous()
    assert seen[0].data_ptr() == x.data_ptr()
    same(y, theirs(x))


def test_weights_of_convolutions_lie_as_the_kernels_read_them() -> None:
    convolution = tt.Conv2d(4, 6, 3)
    weight = convolution.weight
    for changed in (
        convolution,
        convolution.to(memory_format=torch.channels_last),
        convolution.double(),
        copy.deepcopy(convolution),
        pickle.loads(pickle.dumps(convolution)),
    ):
        assert changed.weight.shape == (6, 4, 3, 3)
        assert changed.weight.permute(2, 3, 1, 0).is_contiguous()
    assert convolution.weight is weight
    convolution.float()(image()).sum().backward()
    assert weight.grad.stride() == weight.stride()


def test_dropout() -> None:
    dropout, x = tt.Dropout(0.25), torch.ones(100, 100, requires_grad=True)
    torch.manual_seed(1)
    y = dropout(x)
    assert abs(float((y == 0).sum()) - 2500) < 200
    same(y[y != 0], torch.full_like(y[y != 0], 1 / 0.75))
    y.sum().backward()
    same(x.grad, y.detach())
    assert not torch.equal(dropout(x), y)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), y)
    assert dropout.eval()(x) is x
    assert not tt.Dropout(1.0).train()(x).any()


LOSSES: dict[str, tuple[str, dict[str, Any], Callable[[], Any], Callable[[], Any]]] = {
    "cross entropy": ("CrossEntropyLoss", {}, lambda: image(6, 4), lambda: torch.arange(6) % 4),
    "cross entropy smoothed": (
        "CrossEntropyLoss",
        {"label_smoothing": 0.1, "reduction": "sum"},
        lambda: image(6, 4),
        lambda: torch.arange(6) % 4,
    ),
    "cross entropy of pixels": (
        "CrossEntropyLoss",
        {},
        lambda: image(2, 4, 3, 5),
        lambda: torch.arange(30).reshape(2, 3, 5) % 4,
    ),
    "cross entropy one sample": ("CrossEntropyLoss", {}, lambda: image(4), lambda: torch.tensor(2)),
    "cross entropy ignoring": (
        "CrossEntropyLoss",
        {},
        lambda: image(3, 4),
        lambda: torch.tensor([1, -100, 3]),
    ),
    "cross entropy distributions": (
        "CrossEntropyLoss",
        {},
        lambda: image(6, 4),
        lambda: image(6, 4).softmax(1),
    ),
    "cross entropy distributions of pixels": (
        "CrossEntropyLoss",
        {"reduction": "sum"},
        lambda: image(2, 4, 3),
        lambda: image(2, 4, 3).softmax(1),
    ),
    "binary": ("BCEWithLogitsLoss", {}, lambda: image(6, 4), lambda: image(6, 4).sigmoid()),
    "binary sum": ("BCEWithLogitsLoss", {"reduction": "sum"}, lambda: image(6), lambda: image(6).sigmoid()),
    "squares": ("MSELoss", {}, lambda: image(6, 4), lambda: image(6, 4) ** 2),
    "squares sum": ("MSELoss", {"reduction": "sum"}, lambda: image(6, 4), lambda: image(6, 4) ** 2),
    "squares scalar": ("MSELoss", {}, lambda: torch.tensor(2.0), lambda: torch.tensor(3.0)),
}


@pytest.mark.parametrize("case", LOSSES)
def test_loss(case: str) -> None:
    name, options, scores, target = LOSSES[case]
    results = []
    for module in (nn, tt):
        x = scores().requires_grad_()
        loss = getattr(module, name)(**options)(x, target())
        loss.backward()
        results.append((loss, x.grad))
    for theirs, ours in zip(*results, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tt.Conv2d(1, 2, 3, padding_mode="reflect"), "padding_mode is 'reflect'; expected 'zeros'"),
        (lambda: tt.MaxPool2d(2, ceil_mode=True), "ceil_mode=False"),
        (lambda: tt.AvgPool2d(2, divisor_override=3), "divisor_override=None"),
        (lambda: tt.AdaptiveAvgPool2d(2), "output_size is 2; expected 1"),
        (lambda: tt.LeakyReLU(-0.1), "negative_slope is -0.1"),
        (lambda: tt.Softplus(beta=2), "beta is 2"),
        (lambda: tt.Softmax(), "dim is None"),
        (lambda: tt.CrossEntropyLoss(weight=torch.ones(3)), "weight and pos_weight"),
        (lambda: tt.MSELoss(reduction="none"), "reduction is 'none'"),
        (lambda: tt.Linear(2, 3, dtype=torch.bfloat16), "parameters are torch.bfloat16"),
        (lambda: tt.Conv2d(4, 2, 3)(image(4, 4)), r"shape \(4, 4\); expected \[n, c, h, w\]"),
        (lambda: tt.LayerNorm(5)(image(4, 4)), r"shape \(4, 4\); expected \[..., 5\]"),
        (lambda: tt.BatchNorm1d(4)(image(1, 4)), "1 values for each channel"),
    ],
)
def test_what_does_not_do(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Block(nn.Module):
    """Of a ResNet (He et al., 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Any) -> Any:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


def resnet18() -> nn.Module:
    stem = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    sizes += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    head = [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*stem, *(Block(*size) for size in sizes), *head)


class Encoder(nn.Module):
    """A layer of a transformer's encoder, its attention in matrix products."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.softmax = nn.Softmax(dim=-1)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Any) -> Any:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        weights = self.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, length, width))
        return x + self.mlp(self.norm2(x))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (resnet18, (4, 3, 64, 64)),
    "encoder": (lambda: nn.Sequential(Encoder(), Encoder()), (2, 9, 32)),
    "CNN": (
        lambda: nn.Sequential(
            *(
                nn.Conv2d(1, 8, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(8, 8, 3),
                nn.BatchNorm2d(8),
                nn.Tanh(),
            ),
            *(nn.Flatten(), nn.Linear(8 * 5 * 5, 16), nn.Sigmoid(), nn.Dropout(0.0), nn.Linear(16, 3)),
        ),
        (4, 1, 16, 16),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_network(name: str, dtype: Any) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    theirs = make().to(dtype)
    ours = tt.replace_modules(copy.deepcopy(theirs))
    x = image(*shape).to(dtype)
    for a, b in [(theirs.train(), ours.train()), (theirs.eval(), ours.eval())]:
        results = []
        for module in (a, b):
            module.zero_grad()
            y = module(x)
            (y**2).mean().backward()
            results.append([y, *(p.grad for p in module.parameters()), *module.buffers()])
        for their, our in zip(*results, strict=True):
            scale = max(1.0, float(their.detach().abs().max()))
            same(our, their, scale * (1e-4 if dtype == torch.float32 else 1e-11))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_replacement_keeps_what_there_is() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 5),
        nn.ReLU(),
        nn.Dropout(),
    ).eval()
    parameters, modules, called = list(model.parameters()), list(model.modules()), []
    model[4].register_forward_hook(lambda module, args, output: called.append(type(module)))
    values = [p.detach().clone() for p in parameters]
    names = list(model.state_dict())
    assert tt.replace_modules(model) is model
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert all(torch.equal(a, b) for a, b in zip(parameters, values, strict=True))
    assert list(model.state_dict()) == names
    assert not any(module.training for module in model.modules())
    assert [type(m).__name__ for m in model] == [
        "Conv2d",
        "Fused",
        "Fused",
        "Flatten",
        "Linear",
        "ReLU",
        "Dropout",
    ]
    assert "max_pool=(2, 2)" in repr(model)
    assert "ReLU is part of 0" in repr(model)
    model(image(2, 1, 8, 8))
    assert called == [tt.Linear]
    again = repr(model)
    assert repr(tt.replace_modules(model)) == again


def test_nothing_is_fused_where_it_would_show() -> None:
    shared, relu = nn.Linear(4, 4), nn.ReLU()
    for model in (
        nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu),
        nn.Sequential(shared, nn.ReLU(), shared),
        nn.Sequential(nn.Linear(4, 4), nn.GELU()),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(3, 2)),
    ):
        assert not any(isinstance(m, Fused) for m in tt.replace_modules(model))
    model = tt.replace_modules(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), fuse=False)
    assert [type(m) for m in model] == [tt.Linear, tt.ReLU]


def test_what_is_not_replaced() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(
        *(nn.Conv2d(1, 1, 3, padding_mode="circular"), Own(2, 2), nn.Linear(2, 2).bfloat16()),
        *(nn.MaxPool2d(2, ceil_mode=True), nn.Conv1d(1, 1, 1), nn.Softmax()),
    )
    before = [type(module) for module in model]
    assert [type(module) for module in tt.replace_modules(model)] == before
    assert type(tt.replace_modules(nn.Linear(2, 3))) is tt.Linear


def test_compiled_network() -> None:
    torch.compiler.reset()
    make, shape = NETWORKS["CNN"]
    theirs = make()
    ours = torch.compile(tt.replace_modules(copy.deepcopy(theirs)), backend="aot_eager")
    assert_same_training(theirs, ours, image(*shape), 1e-4)


def test_autocast() -> None:
    """Products in bfloat16, results in float32; what comes in 16 bits is converted."""
    linear, x = tt.Linear(64, 32), image(16, 64)
    exact = linear(x)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            y = linear(given)
            assert y.dtype == torch.float32
            assert 1e-5 < float((y - exact).detach().abs().max()) < 0.1
        z = tt.Conv2d(4, 8, 3)(image().bfloat16().requires_grad_())
        assert z.dtype == torch.float32
        assert tt.softmax(x.bfloat16()).dtype == torch.float32
        loss = tt.CrossEntropyLoss()(y, torch.arange(16))
    (loss + z.sum()).backward()
    assert linear.weight.grad.dtype == torch.float32
    with pytest.raises(TypeError, match="bfloat16; expected float32 or float64"):
        tt.relu(x.bfloat16())


@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "BCEWithLogitsLoss", "MSELoss"])
def test_targets_with_a_gradient(loss: str) -> None:
    gradients = []
    for kinds in (nn, tt):
        target = torch.full((3, 4), 0.25, requires_grad=True)
        getattr(kinds, loss)()(torch.ones(3, 4), target).backward()
        gradients.append(target.grad)
    same(gradients[1], gradients[0])


def test_targets_of_another_dtype() -> None:
    x, y = torch.ones(3, 4), torch.zeros(3, 4, dtype=torch.float64)
    assert tt.MSELoss()(x, y).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_pytorch_s(dtype: Any) -> None:
    theirs = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3), nn.Softplus()
    )
    ours = tt.replace_modules(copy.deepcopy(theirs)).to(dtype)
    x = image(5, 2, 4, 4).to(dtype)
    torch.testing.assert_close(ours(x), theirs.to(dtype)(x))
    assert torch.equal(tt.ReLU()(torch.tensor([-1, 2])), torch.tensor([0, 2]))


def test_symbolic_traces() -> None:
    model = tt.replace_modules(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    x = image(5, 4)
    same(torch.fx.symbolic_trace(model)(x), model(x))


def test_modules_that_change_their_input() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)
            self.relu(y)
            return y

    theirs = Model()
    ours = tt.replace_modules(copy.deepcopy(theirs))
    assert type(ours.relu) is nn.ReLU
    same(ours(image(5, 4)), theirs(image(5, 4)))
    fused = tt.replace_modules(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)))
    assert fused[0].activation == "relu"


def test_batch_norm_of_no_rows() -> None:
    module = tt.BatchNorm1d(3).train()
    x = torch.zeros(0, 3, requires_grad=True)
    y = module(x)
    assert y.shape == (0, 3)
    y.sum().backward()
    assert not module.weight.grad.any()
    assert int(module.num_batches_tracked) in (0, 1)
