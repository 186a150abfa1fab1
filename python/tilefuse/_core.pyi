"""The compiled part of tilefuse: kernels on NumPy arrays, and Program, the compiled training step."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

_Array = NDArray[Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

# --- the library as a whole ---

def isa() -> str: ...
def available_isas() -> list[str]: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def peak(dtype: str, turns: int) -> float: ...
def counters() -> dict[str, int]: ...
def empty(shape: Sequence[int], dtype: Any) -> _Array: ...
def owns(array: _Array) -> bool: ...
def build_info() -> dict[str, Any]: ...
def direct(name: str, function: _Function) -> _Function: ...
def use_direct(used: bool) -> None: ...
def record(change: int) -> None: ...
def xla_handlers() -> dict[str, Any]: ...
def from_dlpack(x: Any) -> _Array: ...
def hand_over(array: _Array, like: Any) -> Any: ...

class HandedOver:
    def __init__(self, array: _Array) -> None: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

# --- kernels: contiguous arrays of one dtype, float32 or float64; results go to arrays that are passed in ---

def matmul(
    a: _Array,
    b: _Array,
    out: _Array,
    bias: _Array | None,
    activation: str,
    alpha: float,
    beta: float,
    preactivation: _Array | None,
    transpose_a: bool = False,
    transpose_b: bool = False,
    precision: str = "float32",
    operands: str = "float32",
    result: str = "float32",
) -> None: ...
def column_sum(x: _Array, out: _Array) -> None: ...
def conv2d(
    x: _Array,
    w: _Array,
    y: _Array,
    bias: _Array | None,
    activation: str,
    alpha: float,
    preactivation: _Array | None,
    geometry: Sequence[int],
    precision: str = "float32",
    pool: tuple[int, int] | None = None,
    argmax: _Array | None = None,
) -> None: ...
def conv2d_backward_data(
    dy: _Array,
    w: _Array,
    dx: _Array,
    geometry: Sequence[int],
    precision: str = "float32",
    pool: tuple[int, int] | None = None,
    argmax: _Array | None = None,
) -> None: ...
def conv2d_backward_weights(
    x: _Array,
    dy: _Array,
    dw: _Array,
    db: _Array | None,
    geometry: Sequence[int],
    precision: str = "float32",
    pool: tuple[int, int] | None = None,
    argmax: _Array | None = None,
) -> None: ...
def pool2d(
    kind: str,
    x: _Array,
    y: _Array | None,
    kernel: tuple[int, int],
    geometry: Sequence[int],
    count_padding: bool = False,
    argmax: _Array | None = None,
) -> None: ...
def pool2d_backward(
    kind: str,
    dy: _Array,
    dx: _Array,
    kernel: tuple[int, int],
    geometry: Sequence[int],
    count_padding: bool = False,
    argmax: _Array | None = None,
    derivative: str = "linear",
    alpha: float = 0.0,
    derivative_at: _Array | None = None,
    mask: _Array | None = None,
    mask_scale: float = 1.0,
) -> None: ...
def activations() -> dict[str, float]: ...
def activation(x: _Array, y: _Array, name: str, alpha: float) -> None: ...
def activation_backward(dy: _Array, at: _Array, dx: _Array, name: str, alpha: float) -> None: ...
def add(a: _Array, b: _Array, y: _Array, activation: str = "linear", alpha: float = 0.0) -> None: ...
def softmax(x: _Array, y: _Array, log: bool) -> None: ...
def softmax_backward(dy: _Array, y: _Array, dx: _Array, log: bool) -> None: ...
def batch_norm(
    x: _Array,
    gamma: _Array | None,
    beta: _Array | None,
    moving_mean: _Array | None,
    moving_variance: _Array | None,
    y: _Array,
    training: bool,
    momentum: float,
    epsilon: float,
    activation: str = "linear",
    alpha: float = 0.0,
    residual: _Array | None = None,
    mean: _Array | None = None,
    inv_std: _Array | None = None,
    preactivation: _Array | None = None,
) -> None: ...
def batch_norm_backward(
    dy: _Array,
    x: _Array,
    gamma: _Array | None,
    mean: _Array,
    inv_std: _Array,
    dx: _Array | None,
    dgamma: _Array | None,
    dbeta: _Array | None,
    training: bool,
    derivative_at: _Array | None = None,
    derivative: str = "linear",
    alpha: float = 0.0,
) -> None: ...
def layer_norm(
    x: _Array,
    gamma: _Array | None,
    beta: _Array | None,
    y: _Array,
    rms: bool,
    epsilon: float,
    mean: _Array | None = None,
    inv_std: _Array | None = None,
) -> None: ...
def layer_norm_backward(
    dy: _Array,
    x: _Array,
    gamma: _Array | None,
    dx: _Array | None,
    dgamma: _Array | None,
    dbeta: _Array | None,
    rms: bool,
    epsilon: float,
    mean: _Array | None = None,
    inv_std: _Array | None = None,
) -> None: ...
def loss(
    name: str,
    from_logits: bool,
    x: _Array,
    labels: _Array,
    sample_weight: _Array | None,
    label_smoothing: float,
    dx: _Array,
) -> float: ...
def dropout_mask(mask: _Array, rate: float, seed: int, step: int) -> None: ...
def dropout(x: _Array, mask: _Array, y: _Array, rate: float) -> None: ...
def optimizer_step(
    rule: dict[str, Any],
    params: Sequence[_Array],
    grads: Sequence[_Array],
    slots: Sequence[Sequence[_Array]],
) -> None: ...
def clip_norm(
    grads: Sequence[_Array], limit: float, global_norm: bool
) -> tuple[list[float], list[float]]: ...

# --- the compiled step ---

class Program:
    iteration: int
    @property
    def stages(self) -> list[str]: ...
    @property
    def bytes(self) -> int: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    def __init__(
        self,
        layers: list[dict[str, Any]],
        input_shape: tuple[int, ...],
        batch: int,
        loss: dict[str, Any] | None,
        optimizer: dict[str, Any] | None,
        dtype: str,
        *,
        networks: str = "auto",
        precision: str = "float32",
    ) -> None: ...
    def train_step(
        self, x: _Array, y: _Array, sample_weight: _Array | None = None, learning_rate: float = 1e-3
    ) -> tuple[float, float]: ...
    def train_epoch(
        self,
        x: _Array,
        y: _Array,
        order: _Array | None,
        learning_rates: _Array,
        *,
        batch_size: int | None = None,
        sample_weight: _Array | None = None,
        predictions: _Array | None = None,
        on_progress: Callable[[int, float, float], bool | None] | None = None,
        interval: float = 0.05,
    ) -> dict[str, Any]: ...
    def evaluate(self, x: _Array, y: _Array, sample_weight: _Array | None = None) -> tuple[float, float]: ...
    def predict(self, x: _Array, out: _Array) -> None: ...
    def describe(self) -> str: ...
    def profile(self, on: bool = True) -> None: ...
    @property
    def timings(self) -> list[dict[str, Any]]: ...
