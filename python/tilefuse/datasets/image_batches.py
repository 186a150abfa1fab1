"""Batches of images, made by threads while the caller trains on the batches before."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._runtime import generator, next_seed
from .augmentation import DRAWS, Augmentation

T = TypeVar("T")
Job = tuple[T, Sequence[Callable[[], Any]]]

# Batches that are in the making while the caller has one.
_AHEAD = 2
# Images that a thread makes at a time.
_CHUNK = 4
_THREAD_NAME = "tilefuse-images"


def work_ahead(jobs: Iterator[Job[T]], workers: int, ahead: int = _AHEAD) -> Iterator[T]:
    """Yield the results of `jobs` in their order, with the next ones in the making.

    The threads end with the generator: when it is exhausted or closed, or when the last reference to it goes.

    Parameters
    ----------
    jobs : iterator of (result, list of functions)
        A result is ready when its functions, which the threads call, have returned. What they raise reaches
        the caller.
    workers : int
        Threads.
    ahead : int
        How many jobs are begun before the caller asks for them.
    """
    pool = ThreadPoolExecutor(workers, _THREAD_NAME)
    begun: deque[tuple[T, list[Any]]] = deque()
    try:
        for result, functions in jobs:
            begun.append((result, [pool.submit(function) for function in functions]))
            if len(begun) > ahead:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())
    finally:
        # The garbage collector may close this in one of the threads, which cannot wait for itself.
        own = threading.current_thread().name.startswith(_THREAD_NAME)
        pool.shutdown(wait=not own, cancel_futures=True)


def _finished(result: T, futures: list[Any]) -> T:
    for future in futures:
        future.result()
    return result


class ImageBatches(ABC):
    """Batches of images in an order, and with changes, that follow from the seed and the number of the epoch.

    Iterating takes one epoch; each time the next. `next` goes on through the epochs without end.

    Attributes
    ----------
    epoch : int
        The number of the epoch that the next iteration takes. May be set.
    samples : int
        The number of images.
    batch_size : int
    image_shape : (int, int, int)
        Height, width, channels.
    seed : int
        Of order and changes.
    """

    def __init__(
        self,
        samples: int,
        image_shape: tuple[int, int, int],
        batch_size: int,
        augmentation: Augmentation,
        shuffle: bool,
        seed: int | None,
        workers: int | None,
    ) -> None:
        self.samples, self.image_shape = samples, image_shape
        self.batch_size = _count("batch_size", batch_size)
        self.augmentation, self.shuffle = augmentation, bool(shuffle)
        if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
            raise ValueError(f"seed must be an integer of at least 0, or None for a new one; got {seed!r}.")
        self.seed = next_seed() if seed is None else int(seed)
        self.workers = _count("workers", len(os.sched_getaffinity(0)) if workers is None else workers)
        self.reset()

    def reset(self) -> None:
        """Begin again with epoch 0."""
        self.epoch = self._taken = 0

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        self.epoch += 1
        yield from self._made(epoch, range(len(self)))

    def __next__(self) -> Any:
        epoch, index = divmod(self._taken, len(self))
        self._taken += 1
        return next(self._made(epoch, range(index, index + 1)))

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, got the index {index}")
        index %= len(self)
        return next(self._made(self.epoch, range(index, index + 1)))

    @abstractmethod
    def _pixels(self, sample: int) -> np.ndarray:
        """Return an image as `Augmentation.apply` takes it. Is called by several threads."""

    @abstractmethod
    def _batch(self, x: np.ndarray, samples: np.ndarray) -> Any:
        """Return the batch of the images `x`, whose numbers are `samples`."""

    def _made(self, epoch: int, batches: range) -> Iterator[Any]:
        """Yield the `batches` of an epoch."""
        random = generator(self.seed, epoch)
        draws = random.random((self.samples, DRAWS))
        order = random.permutation(self.samples) if self.shuffle else np.arange(self.samples)
        jobs = (self._job(order[i * self.batch_size : (i + 1) * self.batch_size], draws) for i in batches)
        for x, samples in work_ahead(jobs, self.workers):
            yield self._batch(x, samples)

    def _job(self, samples: np.ndarray, draws: np.ndarray) -> Job[tuple[np.ndarray, np.ndarray]]:
        x = np.empty((len(samples), *self.image_shape), np.float32)
        parts = (slice(i, i + _CHUNK) for i in range(0, len(samples), _CHUNK))
        return (x, samples), [partial(self._fill, x[part], samples[part], draws) for part in parts]

    def _fill(self, x: np.ndarray, samples: np.ndarray, draws: np.ndarray) -> None:
        for out, sample in zip(x, samples.tolist(), strict=True):
            self.augmentation.apply(self._pixels(sample), draws[sample], out)


class ImageArrays(ImageBatches):
    """Images that are in an array, changed anew in each epoch; `ImageDataGenerator.flow` makes one.

    Attributes
    ----------
    x : array [n, h, w, c]
    y, sample_weight : array [n, ...] or None
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        *,
        augmentation: Augmentation,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        workers: int | None = None,
    ) -> None:
        self.x = np.asarray(x)
        self.y = None if y is None else np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        if self.x.ndim != 4 or not self.x.size or self.x.dtype.kind not in "fiub":
            raise ValueError(
                f"x must hold images, [n, h, w, c], as numbers; got the shape {self.x.shape} and dtype "
                f"{self.x.dtype}. Grey images are given as x[..., None]."
            )
        for name, array in (("y", self.y), ("sample_weight", self.sample_weight)):
            if array is not None and (not array.ndim or len(array) != len(self.x)):
                raise ValueError(
                    f"{name} must hold one for each of the {len(self.x)} images; got {array.shape}."
                )
        if self.sample_weight is not None and self.y is None:
            raise ValueError("sample_weight goes with labels: give y, too.")
        height, width, channels = self.x.shape[1:]
        super().__init__(
            len(self.x), (height, width, channels), batch_size, augmentation, shuffle, seed, workers
        )

    def _pixels(self, sample: int) -> np.ndarray:
        return self.x[sample]

    def _batch(self, x: np.ndarray, samples: np.ndarray) -> Any:
        if self.y is None:
            return x
        if self.sample_weight is None:
            return x, self.y[samples]
        return x, self.y[samples], self.sample_weight[samples]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)
