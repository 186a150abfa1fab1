"""Images from folders: what is read, in which order, how it is changed, and what mistakes are said to be."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilefuse
from tilefuse import layers
from tilefuse.datasets import (
    Augmentation,
    ImageDataGenerator,
    ImageError,
    ImageFolder,
    load_image,
    write_image_folder,
)
from tilefuse.datasets.augmentation import DRAWS
from tilefuse.datasets.image_batches import work_ahead

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
LABELS = np.array([0, 1] * 6)
CHANGES: dict[str, Any] = {
    "rotation_range": 30,
    "width_shift_range": 0.2,
    "height_shift_range": [1, 2],
    "shear_range": 10,
    "zoom_range": 0.3,
    "brightness_range": (0.5, 1.5),
    "channel_shift_range": 20,
    "horizontal_flip": True,
    "vertical_flip": True,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of each of two classes."""
    return write_image_folder(tmp_path / "pets", PIXELS, LABELS, ["cats", "dogs"])


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "large.jpg"
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp, (100, 200)).copy()).convert("RGB").save(path, quality=95)
    return path


def save(image: Any, path: Path, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)
    return path


def all_batches(batches: Any) -> tuple[np.ndarray, ...]:
    return tuple(map(np.concatenate, zip(*batches, strict=True)))


def changed(pixels: np.ndarray, draws: float = 0.0, size: Any = None, **how: Any) -> np.ndarray:
    """Return what Augmentation makes of the pixels, all of its random numbers being `draws`."""
    out = np.empty((*(size or pixels.shape[:2]), pixels.shape[2] if pixels.ndim == 3 else 1), np.float32)
    Augmentation(**how).apply(pixels, np.full(DRAWS, draws), out)
    return out


def image_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("tilefuse-images")]


# Reading


def test_pixels_labels_and_names(folder: Path) -> None:
    images = ImageFolder(folder, (9, 7), 5, shuffle=False)
    assert (len(images), images.samples, images.num_classes) == (3, 12, 2)
    assert images.class_names == ["cats", "dogs"]
    assert images.class_indices == {"cats": 0, "dogs": 1}
    assert images.classes.tolist() == [0] * 6 + [1] * 6
    assert images.filenames[:2] == [str(Path("cats", "00000.png")), str(Path("cats", "00002.png"))]
    assert all(Path(path).is_file() for path in images.filepaths)
    assert [len(x) for x, _ in images] == [5, 5, 2]
    x, y = all_batches(images)
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x, np.concatenate([PIXELS[::2], PIXELS[1::2]]))
    np.testing.assert_array_equal(y, np.eye(2)[images.classes])
    assert "12 images of 2 classes" in repr(images)


@pytest.mark.parametrize(
    ("mode", "dtype", "labels"),
    [
        ("categorical", np.float32, [[1, 0], [0, 1]]),
        ("binary", np.float32, [0, 1]),
        ("sparse", np.int32, [0, 1]),
    ],
)
def test_class_modes(folder: Path, mode: str, dtype: Any, labels: Any) -> None:
    _, y = all_batches(ImageFolder(folder, 8, class_mode=mode, shuffle=False))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[[0, -1]], labels)


def test_images_as_labels_and_no_labels(folder: Path) -> None:
    ((x, y),) = ImageFolder(folder, 8, class_mode="input")
    assert x is y
    (alone,) = ImageFolder(folder, 8, class_mode=None)
    assert alone.shape == (12, 8, 8, 3)
    (flat,) = ImageFolder(folder / "cats", 8, class_mode=None)
    assert flat.shape == (6, 8, 8, 3)


def test_given_classes_and_sub_folders(folder: Path, tmp_path: Path) -> None:
    save(Image.new("RGB", (4, 4)), folder / "cats" / "deep" / "down" / "x.PNG")
    images = ImageFolder(folder, 4, classes=["dogs", "cats"])
    assert images.class_names == ["dogs", "cats"]
    assert np.bincount(images.classes).tolist() == [6, 7]
    assert str(Path("cats", "deep", "down", "x.PNG")) in images.filenames
    assert ImageFolder(folder, 4, classes=["cats"]).samples == 7


def test_links_to_folders_on_request(folder: Path, tmp_path: Path) -> None:
    save(Image.new("RGB", (4, 4)), tmp_path / "more" / "x.png")
    (folder / "cats" / "link").symlink_to(tmp_path / "more")
    assert ImageFolder(folder, 4).samples == 12
    assert ImageFolder(folder, 4, follow_links=True).samples == 13


def test_subsets_are_parts_of_each_class(folder: Path) -> None:
    parts = [ImageFolder(folder, 8, validation_split=0.4, subset=s) for s in ("training", "validation")]
    assert [np.bincount(part.classes).tolist() for part in parts] == [[4, 4], [2, 2]]
    assert sorted(parts[0].filenames + parts[1].filenames) == ImageFolder(folder, 8).filenames
    assert parts[1].filenames[0].endswith("00000.png")  # the first ones, as in Keras


MODES: dict[str, tuple[Any, float, list[float]]] = {
    "1": (Image.new("1", (4, 4), 1), 255, [255] * 3),
    "L": (Image.new("L", (4, 4), 100), 100, [100] * 3),
    "LA": (Image.new("LA", (4, 4), (100, 7)), 100, [100] * 3),
    "P": (Image.new("RGB", (4, 4), (200, 100, 50)).quantize(4), 124, [200, 100, 50]),
    "RGB": (Image.new("RGB", (4, 4), (200, 100, 50)), 124, [200, 100, 50]),
    "RGBA": (Image.new("RGBA", (4, 4), (200, 100, 50, 3)), 124, [200, 100, 50]),
    "16 bits": (Image.fromarray(np.full((4, 4), 257 * 100 + 64, np.uint16)), 100.249, [100.249] * 3),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path: Path, mode: str) -> None:
    image, grey, colour = MODES[mode]
    path = save(image, tmp_path / "image.png")
    np.testing.assert_allclose(load_image(path, 4, "grayscale"), np.full((4, 4, 1), grey), atol=0.01)
    np.testing.assert_allclose(load_image(path, 4), np.tile(np.float32(colour), (4, 4, 1)), atol=0.01)


def test_transparent_colour_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = save(image, tmp_path / "image.png", transparency=b"\xff\x00")
    assert load_image(path, 4)[0, 0].tolist() == [10, 20, 30]


def test_cmyk_and_animations(tmp_path: Path) -> None:
    path = save(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), tmp_path / "image.jpg")
    assert load_image(path, 4).min() > 250
    frames = [Image.new("L", (4, 4), 40), Image.new("L", (4, 4), 200)]
    path = save(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert (load_image(path, 4) == 40).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](PIXELS[0]))
    path = save(Image.fromarray(stored), tmp_path / f"image.{suffix}", exif=exif)
    np.testing.assert_array_equal(load_image(path, (9, 7)), PIXELS[0])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("size", [(4, 5), (20, 30), (20, 5)])
def test_resizing_is_pillows(tmp_path: Path, interpolation: str, size: tuple[int, int]) -> None:
    path = save(Image.fromarray(PIXELS[0]), tmp_path / "image.png")
    method = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(PIXELS[0]).resize(size[::-1], method), np.float32)
    loaded = load_image(path, size, interpolation=interpolation)
    # Enlarging is part of the affine resampling, which rounds elsewhere.
    assert np.abs(loaded - expected).max() <= 1


def test_large_jpegs_are_decoded_small(jpeg: Path) -> None:
    images = [load_image(jpeg, size, mode) for size in ((20, 40), (90, 180)) for mode in ("rgb", "grayscale")]
    for image in images:
        expected = (np.arange(image.shape[1]) + 0.5) / image.shape[1] * 255
        np.testing.assert_allclose(image.mean(axis=(0, 2)), expected, atol=4)


def test_rescale_and_load_image_agree_with_the_folder(folder: Path) -> None:
    images = ImageFolder(folder, 16, shuffle=False, rescale=1 / 255, color_mode="grayscale")
    image = load_image(images.filepaths[3], 16, "grayscale", 1 / 255)
    assert image.shape == (16, 16, 1)
    assert 0 <= image.min() < image.max() <= 1
    np.testing.assert_array_equal(images[0][0][3], image)


def test_write_image_folder(tmp_path: Path) -> None:
    write_image_folder(tmp_path, PIXELS[..., :1], LABELS + 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8"]
    np.testing.assert_array_equal(
        load_image(tmp_path / "8" / "00001.png", (9, 7), "grayscale"), PIXELS[1, ..., :1]
    )
    for arguments, error, text in (
        ((PIXELS / 255, LABELS), TypeError, "uint8.*got float64"),
        ((PIXELS[0, 0], LABELS), ValueError, r"\[n, h, w, c\].*got \(7, 3\)"),
        ((PIXELS, LABELS[:3]), ValueError, r"must have the shape \(12,\).*got \(3,\)"),
        ((PIXELS, LABELS, ["cats"]), ValueError, "1 names.*from 0 to 1. Give a name for each"),
    ):
        with pytest.raises(error, match=text):
            write_image_folder(tmp_path, *arguments)


# Order and threads


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_pixels_follow_from_the_seed_alone(folder: Path, workers: int) -> None:
    def take(batch: int, workers: int, seed: int) -> list[tuple[np.ndarray, ...]]:
        images = ImageFolder(folder, (9, 7), batch, seed=seed, workers=workers, **CHANGES)
        return [all_batches(images) for _ in range(2)]

    first, second = take(5, 1, 3)
    for (x, y), (other_x, other_y) in zip((first, second), take(4, workers, 3), strict=True):
        assert x.tobytes() == other_x.tobytes()
        assert y.tobytes() == other_y.tobytes()
    assert first[0].tobytes() != second[0].tobytes()
    assert first[0].tobytes() != take(5, 1, 4)[0][0].tobytes()


def test_images_are_kept_as_far_as_there_is_room(folder: Path) -> None:
    kept, read = (ImageFolder(folder, (9, 7), 5, seed=1, cache_mib=mib, **CHANGES) for mib in (1, 0))
    assert [len(batch) for batch, _ in kept] == [len(batch) for batch, _ in read]
    for ours, theirs in zip(all_batches(kept), all_batches(read), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for file in folder.glob("*/*.png"):
        file.unlink()
    assert len(all_batches(kept)[0]) == 12
    with pytest.raises(ImageError, match="12 images"):
        all_batches(read)
    large = write_image_folder(folder / "large", np.zeros((4, 400, 400, 3), np.uint8), np.zeros(4, int))
    images = ImageFolder(large, 400, class_mode=None, cache_mib=1, workers=1)
    list(images)
    assert len(images._kept) == 2  # of 0.46 MiB
    with pytest.raises(ValueError, match="cache_mib must be an integer of at least 0, got -1"):
        ImageFolder(large, 400, class_mode=None, cache_mib=-1)


def test_epochs_shuffle_anew_and_can_be_set(folder: Path) -> None:
    images = ImageFolder(folder, 8, seed=1)
    orders = [all_batches(images)[0] for _ in range(2)]
    assert orders[0].tobytes() != orders[1].tobytes()
    assert np.sort(orders[0], axis=None).tobytes() == np.sort(orders[1], axis=None).tobytes()
    images.epoch = 1
    assert all_batches(images)[0].tobytes() == orders[1].tobytes()
    images.reset()
    assert all_batches(images)[0].tobytes() == orders[0].tobytes()


def test_default_seed_follows_from_tilefuses(folder: Path) -> None:
    drawn = []
    for _ in range(2):
        tilefuse.seed(5)
        drawn.append(ImageFolder(folder, 8).seed)
    assert drawn[0] == drawn[1]


def test_next_goes_on_through_the_epochs(folder: Path) -> None:
    images = ImageFolder(folder, 8, 5, seed=1)
    taken = [next(images) for _ in range(6)]
    for (x, y), (other_x, other_y) in zip(taken, itertools.chain(images, images), strict=True):
        assert x.tobytes() == other_x.tobytes()
        assert y.tobytes() == other_y.tobytes()
    images.reset()
    assert images[-1][0].tobytes() == taken[2][0].tobytes()
    with pytest.raises(IndexError, match="there are 3 batches"):
        images[3]


def test_leaving_early_leaves_no_threads(folder: Path) -> None:
    images = ImageFolder(folder, 8, 1, workers=3)
    for _ in images:
        assert image_threads()
        break
    assert not image_threads()
    iterator = iter(images)
    next(iterator)
    del iterator
    gc.collect()
    assert not image_threads()
    next(images), images[0]
    assert not image_threads()


def test_interrupts_and_errors_leave_no_threads(folder: Path) -> None:
    def interrupt() -> None:
        for _ in ImageFolder(folder, 8, 1, workers=3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not image_threads()

    def fails(image: np.ndarray) -> np.ndarray:
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        list(ImageFolder(folder, 8, 1, workers=3, preprocessing_function=fails))
    assert not image_threads()


def test_an_interrupted_training_leaves_no_threads(folder: Path) -> None:
    class Stop(tilefuse.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 1, after 1 of 6 steps"):
        classifier().fit(ImageFolder(folder, 8, 2), verbose=0, callbacks=[Stop()])
    assert not image_threads()


def test_the_work_ahead_is_bounded() -> None:
    begun: list[int] = []
    jobs = ((number, [lambda number=number: begun.append(number)]) for number in range(100))
    results = work_ahead(jobs, workers=2, ahead=3)
    assert next(results) == 0
    assert next(results) == 1
    results.close()  # type: ignore[attr-defined]
    assert set(begun) <= {0, 1, 2, 3, 4}
    assert list(work_ahead(iter([(1, []), (2, [])]), workers=1)) == [1, 2]


# Augmentation


@pytest.mark.parametrize("draws", [0.0, 0.3, 0.999])
def test_without_ranges_nothing_is_changed(draws: float) -> None:
    np.testing.assert_array_equal(changed(PIXELS[0], draws), PIXELS[0])
    nothing = {name: 0 for name in CHANGES if "flip" not in name and name != "brightness_range"}
    np.testing.assert_array_equal(changed(PIXELS[0], draws, **nothing, brightness_range=(1, 1)), PIXELS[0])


def test_flips_mirror_exactly() -> None:
    np.testing.assert_array_equal(changed(PIXELS[0], 0.2, horizontal_flip=True), PIXELS[0][:, ::-1])
    np.testing.assert_array_equal(changed(PIXELS[0], 0.2, vertical_flip=True), PIXELS[0][::-1])
    np.testing.assert_array_equal(changed(PIXELS[0], 0.7, horizontal_flip=True), PIXELS[0])


def test_flips_together_with_resampling_are_flips_after_it() -> None:
    pixels, moves = PIXELS[0].astype(np.float32), {"rotation_range": 30, "zoom_range": 0.2, "shear_range": 10}
    expected = changed(pixels, 0.3, **moves)
    np.testing.assert_allclose(
        changed(pixels, 0.3, horizontal_flip=True, **moves), expected[:, ::-1], atol=1e-2
    )
    np.testing.assert_allclose(changed(pixels, 0.3, vertical_flip=True, **moves), expected[::-1], atol=1e-2)


def test_half_of_the_images_are_flipped() -> None:
    x = np.broadcast_to(PIXELS[0], (400, 9, 7, 3))
    batches = ImageDataGenerator(horizontal_flip=True).flow(x, batch_size=400, seed=0)
    assert 150 < (batches[0] == PIXELS[0]).all(axis=(1, 2, 3)).sum() < 250


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (-90, 1), (360, 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rotation_by_right_angles(fill_mode: str, degrees: float, turns: int, dtype: Any) -> None:
    square = PIXELS[0, :7].astype(dtype)
    rotated = changed(square, rotation_range=(degrees, degrees), fill_mode=fill_mode)
    np.testing.assert_allclose(rotated, np.rot90(square, turns), atol=1e-4)


@pytest.mark.parametrize(
    ("fill_mode", "expected"),
    [
        ("nearest", [1, 1, 1, 1, 2]),
        ("constant", [7, 7, 7, 1, 2]),
        ("reflect", [3, 2, 1, 1, 2]),
        ("wrap", [3, 4, 5, 1, 2]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_fill_modes(fill_mode: str, expected: list[int], dtype: Any) -> None:
    row = np.array([[1, 2, 3, 4, 5]], dtype)
    # The second choice is -3: the result is the image moved to the right.
    moved = changed(row, 0.5, width_shift_range=[3], fill_mode=fill_mode, cval=7)
    np.testing.assert_allclose(moved.ravel(), expected, atol=1e-5)
    upright = changed(row.T, 0.5, height_shift_range=[3], fill_mode=fill_mode, cval=7)
    np.testing.assert_allclose(upright.ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("fill_mode", ["nearest", "reflect", "wrap"])
def test_shifts_of_several_lengths(fill_mode: str) -> None:
    row = np.arange(1.0, 6.0)[None]
    mode = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}[fill_mode]
    moved = changed(row, 0.5, width_shift_range=[13], fill_mode=fill_mode)
    np.testing.assert_allclose(moved.ravel(), np.pad(row[0], (13, 0), mode)[:5], atol=1e-5)


def test_kinds_of_shifts() -> None:
    row = np.arange(20.0)[None]

    def shift(draws: float, value: Any) -> float:
        return float(changed(row, draws, width_shift_range=value, fill_mode="wrap")[0, 10, 0] - 10)

    assert shift(0.999, 0.2) == pytest.approx(4, abs=0.02)
    assert shift(0.0, 0.2) == pytest.approx(-4, abs=0.02)
    assert shift(0.75, 3.0) == pytest.approx(1.5, abs=0.02)
    assert [shift(draws, 3) for draws in (0.0, 0.3, 0.5, 0.7, 0.99)] == [-2, -1, 0, 1, 2]
    assert shift(0.9, 1) == 0
    assert [shift(draws, [0.25]) for draws in (0.0, 0.5)] == [5, -5]


def test_zoom_keeps_the_centre_and_shear_turns_one_axis() -> None:
    ramp = np.arange(33.0)[None] * np.ones((9, 1))
    zoomed = changed(ramp, zoom_range=(0.5, 0.5))
    np.testing.assert_allclose(zoomed[4, 8:25, 0], 16 + (np.arange(8, 25) - 16) / 2, atol=1e-4)
    sheared = changed(np.arange(33.0)[:, None] * np.ones((1, 33)), shear_range=(30, 30))
    np.testing.assert_allclose(sheared[16, 10:23, 0], 16 - 0.5 * (np.arange(10, 23) - 16), atol=1e-3)


def test_composed_map() -> None:
    image = RNG.random((21, 17)) * 255
    how = {"rotation_range": 25, "shear_range": 15, "zoom_range": 0.3, "width_shift_range": 0.2}
    ours = changed(image, 0.9, height_shift_range=0.1, **how)
    at = 0.8  # 0.9 of the way from -1 to 1
    theta, shear, zoom = np.deg2rad(at * 25), np.deg2rad(at * 15), 1 + at * 0.3
    rotation = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    matrix = rotation @ [[1, -np.sin(shear)], [0, np.cos(shear)]] * zoom
    centre = (np.array(image.shape) - 1) / 2
    places = np.moveaxis(np.indices(image.shape), 0, -1) - centre
    places = places @ matrix.T + rotation @ [at * 0.1 * 21, at * 0.2 * 17] + centre
    np.testing.assert_allclose(ours[..., 0], interpolated(image, places), atol=0.01)


def interpolated(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the image between its pixels, and its edge outside."""
    y, x = (places[..., axis].clip(0, image.shape[axis] - 1) for axis in (0, 1))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.ceil(y).astype(int), np.ceil(x).astype(int)
    upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
    lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def test_brightness_and_channel_shift_are_clipped() -> None:
    pixels = np.array([[[10, 100, 250]]], np.uint8)
    assert changed(pixels, brightness_range=(1.5, 1.5)).ravel().tolist() == [15, 150, 255]
    assert changed(pixels, channel_shift_range=(-20, -20)).ravel().tolist() == [0, 80, 230]


def test_preprocessing_comes_before_rescale() -> None:
    ones = np.ones((2, 2, 1), np.uint8)
    assert (changed(ones, preprocessing_function=lambda image: image + 3, rescale=0.5) == 2).all()
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1\).*returned \(1, 2, 1\).*image_size"):
        changed(ones, preprocessing_function=lambda image: image[:1])


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"rotation_range": -3}, ValueError, "rotation_range must be a number of at least 0 or two.*-3"),
        ({"rotation_range": "much"}, ValueError, "got 'much'"),
        ({"zoom_range": 1.5}, ValueError, "zoom_range must be a number.*below 1.*got"),
        ({"zoom_range": (2, 1)}, ValueError, "the lower one first"),
        ({"brightness_range": 0.5}, ValueError, "brightness_range must be two numbers of at least 0"),
        ({"width_shift_range": -0.1}, ValueError, "width_shift_range must be a fraction.*-0.1"),
        ({"height_shift_range": []}, ValueError, r"height_shift_range must be.*\[\]"),
        ({"fill_mode": "mirror"}, ValueError, "Unknown fill_mode 'mirror'. Known: 'constant'"),
        ({"rescale": "1/255"}, ValueError, "rescale must be a number such as 1/255.*'1/255'"),
        ({"preprocessing_function": 3}, TypeError, "must be a function of an image.*got 3"),
        ({"cval": None}, ValueError, "cval must be a number, got None"),
        ({"rotation": 3}, TypeError, "has no argument 'rotation'. Did you mean 'rotation_range'"),
        ({"featurewise_center": True}, TypeError, "has no argument 'featurewise_center'"),
    ],
)
def test_wrong_ranges(how: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ImageDataGenerator(**how)


# ImageDataGenerator


def test_flow_from_directory_is_an_image_folder(folder: Path) -> None:
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=0.5, **CHANGES)
    flow = generator.flow_from_directory(folder, (9, 7), class_mode="binary", seed=2, subset="training")
    images = ImageFolder(
        folder, (9, 7), class_mode="binary", seed=2, rescale=1 / 255, validation_split=0.5,
        subset="training", interpolation="nearest", **CHANGES,
    )  # fmt: skip
    assert isinstance(flow, ImageFolder)
    assert all_batches(flow)[0].tobytes() == all_batches(images)[0].tobytes()
    assert generator.flow_from_directory(folder).samples == 12
    assert generator.flow_from_directory(folder).image_shape == (256, 256, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_flow_of_arrays(dtype: Any, channels: int) -> None:
    x = RNG.integers(0, 256, (5, 9, 7, channels)).astype(dtype)
    flow = ImageDataGenerator().flow(x, np.arange(5), 2, shuffle=False)
    images, labels = all_batches(flow)
    np.testing.assert_array_equal(images, x)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    turned = ImageDataGenerator(rotation_range=(180, 180)).flow(x, np.arange(5), 2, shuffle=False)
    np.testing.assert_allclose(all_batches(turned)[0], x[:, ::-1, ::-1], atol=1e-3)


def test_flow_with_weights_subsets_and_lists() -> None:
    generator = ImageDataGenerator(validation_split=0.4)
    x, y = PIXELS[:5], [0, 1, 2, 3, 4]
    weighted = generator.flow(x, y, sample_weight=[5, 6, 7, 8, 9], subset="training", shuffle=False)
    ((_, labels, weights),) = weighted
    assert (labels.tolist(), weights.tolist()) == ([2, 3, 4], [7, 8, 9])
    (alone,) = generator.flow(x.tolist(), subset="validation")
    assert alone.shape == (2, 9, 7, 3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((PIXELS[0],), r"must hold images, \[n, h, w, c\].*\(9, 7, 3\).*x\[..., None\]"),
        ((PIXELS, LABELS[:3]), r"y must hold one for each of the 12 images; got \(3,\)"),
        ((PIXELS, None, 0), "batch_size must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_arrays(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ImageDataGenerator().flow(*arguments)


# What cannot be read


@pytest.fixture
def damaged(folder: Path) -> list[str]:
    """Three of the folder's images, no longer readable."""
    names = ["cats/00004.png", "dogs/00003.png", "dogs/00011.png"]
    data = (folder / names[0]).read_bytes()
    (folder / names[0]).write_bytes(data[: len(data) // 2])
    (folder / names[1]).write_bytes(b"<html>not found</html>")
    (folder / names[2]).write_bytes(b"")
    return names


def test_all_damaged_images_are_named(folder: Path, damaged: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        list(ImageFolder(folder, 8, 2))
    assert list(caught.value.files) == damaged
    assert all(name in str(caught.value) for name in damaged)
    assert "3 images (" in str(caught.value)
    assert "on_error='skip'" in str(caught.value)
    assert not image_threads()


def test_damaged_images_can_be_left_out(folder: Path, damaged: list[str]) -> None:
    with pytest.warns(UserWarning, match="left out 3 images") as caught:
        images = ImageFolder(folder, 8, 4, on_error="skip")
    assert caught[0].filename == __file__
    assert all(name in str(caught[0].message) for name in damaged)
    assert (images.samples, len(images)) == (9, 3)
    assert len(all_batches(images)[0]) == 9
    assert not set(damaged) & set(images.filenames)


def test_an_image_that_vanishes_is_named(folder: Path) -> None:
    images = ImageFolder(folder, 8)
    (folder / "cats" / "00002.png").unlink()
    with pytest.raises(ImageError, match=r"00002\.png: no such file"):
        list(images)


def test_foreign_files_are_named(folder: Path) -> None:
    (folder / "cats" / "notes.txt").touch()
    (folder / "cats" / ".hidden").touch()
    (folder / "loose.png").touch()
    with pytest.warns(
        UserWarning, match=r"ignored 2 files \(cats/notes.txt; loose.png: in no class"
    ) as caught:
        assert ImageFolder(folder, 8).samples == 12
    assert caught[0].filename == __file__


def test_load_image_names_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.png: no such file"):
        load_image(tmp_path / "nothing.png", 8)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ImageError, match=r"text\.png: no image that Pillow knows"):
        load_image(tmp_path / "text.png", 8)


WRONG: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "no folder": (lambda p: ImageFolder(p / "birds", 8), FileNotFoundError, "no folder .*birds"),
    "a file": (
        lambda p: ImageFolder(p / "cats" / "00000.png", 8),
        NotADirectoryError,
        "is a file; expected a folder",
    ),
    "no sub-folders": (lambda p: ImageFolder(p / "cats", 8), ValueError, "no sub-folders.*class_mode=None"),
    "nothing in it": (
        lambda p: ImageFolder(empty(p), 8, class_mode=None),
        ValueError,
        "no images in .*nothing.*Expected",
    ),
    "empty class": (
        lambda p: ImageFolder(empty(p).parent, 8),
        ValueError,
        r"no images in nothing.*classes=\['cats', 'dogs'\]",
    ),
    "unknown class": (
        lambda p: ImageFolder(p, 8, classes=["cats", "birds"]),
        ValueError,
        "no sub-folders birds.*it has cats, dogs",
    ),
    "class twice": (lambda p: ImageFolder(p, 8, classes=["cats", "cats"]), ValueError, "a folder twice"),
    "one class": (
        lambda p: ImageFolder(p, 8, class_mode="binary", classes=["cats"]),
        ValueError,
        r"needs two classes; .* has 1 \(cats\)",
    ),
    "class_mode": (
        lambda p: ImageFolder(p, 8, class_mode="catgorical"),
        ValueError,
        "class_mode must be.*'catgorical'. Did you mean 'categorical'",
    ),
    "color_mode": (lambda p: ImageFolder(p, 8, color_mode="rbg"), ValueError, "Did you mean 'rgb'"),
    "interpolation": (
        lambda p: ImageFolder(p, 8, interpolation="linear"),
        ValueError,
        "Unknown interpolation 'linear'. Did you mean 'bilinear'",
    ),
    "image_size": (lambda p: ImageFolder(p, (8, 0)), ValueError, r"\(height, width\).*got \(8, 0\)"),
    "batch_size": (lambda p: ImageFolder(p, 8, 0), ValueError, "batch_size must be an integer.*got 0"),
    "workers": (lambda p: ImageFolder(p, 8, workers=-1), ValueError, "workers must be an integer"),
    "seed": (lambda p: ImageFolder(p, 8, seed=-1), ValueError, "seed must be an integer of at least 0.*-1"),
    "on_error": (lambda p: ImageFolder(p, 8, on_error="ignore"), ValueError, "on_error must be.*'ignore'"),
    "subset alone": (lambda p: ImageFolder(p, 8, subset="training"), ValueError, "go together"),
    "split alone": (lambda p: ImageFolder(p, 8, validation_split=0.2), ValueError, "go together"),
    "split": (
        lambda p: ImageFolder(p, 8, validation_split=1.2, subset="training"),
        ValueError,
        "at least 0 and less than 1, got 1.2",
    ),
    "subset": (
        lambda p: ImageFolder(p, 8, validation_split=0.2, subset="train"),
        ValueError,
        "subset must be one of.*'train'",
    ),
    "empty subset": (
        lambda p: ImageFolder(p, 8, validation_split=0.01, subset="validation"),
        ValueError,
        "subset 'validation' .*is empty.*6, 6 images",
    ),
    "augmentation": (
        lambda p: ImageFolder(p, 8, rotate=3),
        TypeError,
        "ImageFolder has no argument 'rotate'. Did you mean",
    ),
}


def empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes(folder: Path, mistake: str) -> None:
    call, error, text = WRONG[mistake]
    with pytest.raises(error, match=text):
        call(folder)


def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    for use in (lambda: ImageFolder(folder, 8), lambda: load_image("x.png", 8)):
        with pytest.raises(ImportError, match=r'images need Pillow: pip install "tilefuse\[images\]"'):
            use()


# Training


def classifier(size: int = 8) -> tilefuse.Sequential:
    tilefuse.seed(0)
    model = tilefuse.Sequential(
        [
            tilefuse.Input((size, size, 3)),
            layers.Flatten(),
            layers.Dense(8, "relu"),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_folder_trains_as_its_arrays_do(folder: Path) -> None:
    images = ImageFolder(folder, 8, 5, rescale=1 / 255, shuffle=False)
    x, y = all_batches(images)
    by_folder, by_arrays = classifier(), classifier()
    history = by_folder.fit(images, epochs=3, validation_data=images, verbose=0).history
    expected = by_arrays.fit(x, y, 5, 3, validation_data=(x, y), verbose=0, shuffle=False).history
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6)
    np.testing.assert_array_equal(by_folder.predict(images), by_arrays.predict(x))
    np.testing.assert_allclose(
        by_folder.evaluate(images, verbose=0), by_arrays.evaluate(x, y, verbose=0), rtol=1e-6
    )
    without = ImageFolder(folder, 8, 5, class_mode=None, rescale=1 / 255, shuffle=False)
    np.testing.assert_array_equal(by_folder.predict(without), by_arrays.predict(x))


def test_training_on_changed_images_can_be_repeated(folder: Path) -> None:
    def weights(workers: int) -> list[bytes]:
        model = classifier()
        images = ImageFolder(folder, 8, 5, seed=1, workers=workers, rescale=1 / 255, **CHANGES)
        model.fit(images, epochs=3, verbose=0)
        return [w.tobytes() for w in model.get_weights()]

    assert weights(1) == weights(4)


def test_nothing_warns(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(ImageFolder(folder, 8, **CHANGES))
