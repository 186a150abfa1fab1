"""Training from a folder of images, changed anew in every epoch, beside training from arrays in memory.

usage: python benchmarks/image_pipeline.py [--data FOLDER] [--steps N] [--blocks N] [--threads N]

The network is cnn150 of train_step.py, in batches of 32 images of 150 x 150 RGB pixels, changed as those of
examples/image_folder_cnn.py. A block is an epoch of `fit`; the kinds of data take turns, and a time is the
median of a kind's blocks. FOLDER has a sub-folder of images for each of two classes; by default they are
digits on a coloured ground with a camera's noise, as PNG files of 150 x 150 pixels and JPEG of 200 x 200.

Threads read and change images while others train, on the same cores. After the first epoch, images that fit
into `cache_mib` need not be read ("kept"). "possible" is the speed if no core ever waited: the cores share
the work of a step and that on its images, which is measured in one thread.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tilefuse
from _report import markdown_table, save
from _workers.models import MODELS
from _workers.tilefuse import compiled
from tilefuse.datasets import ImageDataGenerator, ImageFolder, load_digits_sample

HERE = Path(__file__).resolve().parent
NETWORK = MODELS["cnn150"]
SIZE = NETWORK.inputs[:2]
CHANGES = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.1,
    "horizontal_flip": True,
}


@dataclass
class Kind:
    """Data to train on, and the milliseconds a step of each block."""

    name: str
    fit: Callable[[], Any]
    images: ImageFolder | None = None
    times: list[float] = field(default_factory=list)

    @property
    def step(self) -> float:
        return statistics.median(self.times)


def write_images(folder: Path, count: int, side: int, suffix: str) -> Path:
    """Digits on a coloured ground, odd and even ones, with noise as of a camera."""
    from PIL import Image

    rng = np.random.default_rng(0)
    (digits, labels), _ = load_digits_sample()
    for number in range(count):
        place = folder / ("odd" if labels[number] % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        ink = np.asarray(Image.fromarray(digits[number]).resize((side, side), Image.Resampling.BICUBIC)) / 255
        ground, colour = rng.uniform(0, 255, (2, 3))
        pixels = ground + (colour - ground) * ink[..., None] + rng.normal(0, 3, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:05}{suffix}", quality=90)
    return folder


def arrays(images: ImageFolder) -> tuple[np.ndarray, np.ndarray]:
    """All images and their labels."""
    x, y = zip(*images, strict=True)
    return np.concatenate(x), np.concatenate(y)


def milliseconds_an_image(images: ImageFolder, count: int = 200) -> tuple[float, float]:
    """The processor's time to read an image, and to change it."""
    out = np.empty(images.image_shape, np.float32)
    draws = np.random.default_rng(0).random((count, 10))
    read, change = [], []
    for i in range(count):
        start = time.thread_time()
        pixels = images._pixels(i % images.samples)
        between = time.thread_time()
        images.augmentation.apply(pixels, draws[i], out)
        read.append(between - start)
        change.append(time.thread_time() - between)
    return 1e3 * statistics.median(read), 1e3 * statistics.median(change)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with a sub-folder of images for each class")
    parser.add_argument("--steps", type=int, default=20, help="of a block (20)")
    parser.add_argument("--blocks", type=int, default=5, help="of each kind (5)")
    parser.add_argument("--threads", type=int, help="(one for each core)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder (benchmarks/results)")
    options = parser.parse_args()
    if options.threads:
        tilefuse.set_num_threads(options.threads)
    threads, count = tilefuse.get_num_threads(), options.steps * NETWORK.batch
    generators = {
        "": ImageDataGenerator(rescale=1 / 255, workers=threads, cache_mib=0, **CHANGES),
        ", kept": ImageDataGenerator(rescale=1 / 255, workers=threads, **CHANGES),
    }
    plain = ImageDataGenerator(rescale=1 / 255)
    how: dict[str, Any] = {"target_size": SIZE, "class_mode": "binary", "interpolation": "bilinear"}
    tilefuse.seed(0)
    model = compiled(NETWORK)

    with tempfile.TemporaryDirectory() as temporary:
        folders = {"files": options.data}
        if not options.data:
            folders = {
                "PNG 150 x 150": write_images(Path(temporary, "png"), count, 150, ".png"),
                "JPEG 200 x 200": write_images(Path(temporary, "jpeg"), count, 200, ".jpg"),
            }
        x, y = arrays(plain.flow_from_directory(next(iter(folders.values())), shuffle=False, **how))
        memory = Kind("memory", lambda: model.fit(x, y, batch_size=NETWORK.batch, verbose=0))
        kinds = [memory]
        for name, folder in folders.items():
            for kept, generator in generators.items():
                images = generator.flow_from_directory(folder, **how)
                kinds.append(Kind(name + kept, lambda images=images: model.fit(images, verbose=0), images))
        for block in range(-1, options.blocks):
            for kind in kinds:
                start = time.perf_counter()
                kind.fit()
                if block >= 0:  # the first ones find the way into the caches
                    kind.times.append(1e3 * (time.perf_counter() - start) / -(-len(x) // NETWORK.batch))
        rows, results = [], {}
        for kind in kinds:
            read, change = milliseconds_an_image(kind.images) if kind.images else (0.0, 0.0)
            ratio = memory.step / kind.step
            possible = memory.step / (memory.step + NETWORK.batch * (read + change) / threads)
            results[kind.name] = {
                "ms_per_step": kind.step, "blocks": kind.times, "ratio": ratio, "possible": possible,
                "ms_to_read": read, "ms_to_change": change,
            }  # fmt: skip
            numbers = [f"{kind.step:.1f}", f"{1e3 * NETWORK.batch / kind.step:.0f}", f"{ratio:.3f}"]
            rows.append([kind.name, *numbers, f"{possible:.3f}", f"{read:.2f}", f"{change:.2f}"])
    header = [
        "data",
        "ms a step",
        "images/s",
        "of memory's",
        "possible",
        "ms to read one",
        "ms to change one",
    ]
    table = markdown_table(header, rows)
    save(options.output, "image_pipeline", {"config": tilefuse.show_config("dicts"), "kinds": results}, table)
    print(table)


if __name__ == "__main__":
    main()
