"""tilefuse.datasets and tilefuse.utils: the data that come out, and what is said of files that are wrong."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tilefuse import utils
from tilefuse.datasets import idx, load_digits_sample, load_mnist, mnist

NAMES = list(mnist.SHA256)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A tiny set of the form of MNIST, by file name."""
    rng = np.random.default_rng(0)
    made = {}
    for prefix, n in (("train", 20), ("t10k", 5)):
        made[f"{prefix}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        made[f"{prefix}-labels-idx1-ubyte.gz"] = rng.integers(0, 10, n, dtype=np.uint8)
    return made


@pytest.fixture
def folder(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


def assert_same(loaded: tuple, arrays: dict[str, np.ndarray]) -> None:
    (x_train, y_train), (x_test, y_test) = loaded
    for name, array in zip(NAMES, (x_train, y_train, x_test, y_test), strict=True):
        assert array.dtype == np.uint8
        assert array.flags.writeable
        np.testing.assert_array_equal(array, arrays[name])


def test_sample_is_balanced_and_small() -> None:
    (x_train, y_train), (x_test, y_test) = load_digits_sample()
    assert x_train.shape == (6000, 28, 28)
    assert x_test.shape == (1000, 28, 28)
    assert x_train.dtype == y_train.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert np.bincount(y_train).tolist() == [600] * 10
    assert np.bincount(y_test).tolist() == [100] * 10
    assert x_train.max() == 255
    assert sum(file.stat().st_size for file in mnist._SAMPLE.iterdir()) < 2_000_000


def test_sample_names_its_source_and_licence() -> None:
    text = (mnist._SAMPLE / "README.md").read_text()
    for word in ("LeCun", "Cortes", "Burges", "Attribution-ShareAlike 3.0"):
        assert word in text


def test_load_from_folder(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_same(load_mnist(folder), arrays)
    assert_same(load_mnist(str(folder)), arrays)
    assert_same(mnist.load_data(folder), arrays)


def test_load_files_without_gzip(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name in NAMES:
        (folder / name).unlink()
        (folder / name.removesuffix(".gz")).write_bytes(idx_bytes(arrays[name]))
    assert_same(load_mnist(folder), arrays)


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_load_from_environment(
    folder: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, subfolder: str
) -> None:
    if subfolder:
        (folder / subfolder).mkdir()
        for name in NAMES:
            (folder / name).rename(folder / subfolder / name)
    monkeypatch.setenv("TILEFUSE_DATA", str(folder))
    assert_same(load_mnist(), arrays)


def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent \(from path\).*train-images"):
        load_mnist(tmp_path / "absent")
    monkeypatch.setenv("TILEFUSE_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="TILEFUSE_DATA"):
        load_mnist()


def test_missing_file(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no file t10k-labels-idx1-ubyte.gz.*https://"):
        load_mnist(folder)


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 5, 20, 400, -1])
def test_truncated_gzip(folder: Path, keep: int) -> None:
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="train-images-idx3") as error:
        load_mnist(folder)
    assert any(mend in str(error.value) for mend in ("again", "Put the right file"))


def test_truncated_array(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    file = folder / "train-labels-idx1-ubyte.gz"
    whole = idx_bytes(arrays[file.name])
    for size in (4, 6, 8, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut short.*again"):
            load_mnist(folder)
    file.write_bytes(gzip.compress(whole + b"x"))
    with pytest.raises(ValueError, match="goes on after its end"):
        load_mnist(folder)


def test_foreign_files(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="no IDX file: it begins with the bytes 3c 68 74 6d"):
        load_mnist(folder)
    file.write_bytes(idx_bytes(arrays["train-labels-idx1-ubyte.gz"]))
    with pytest.raises(ValueError, match=r"with 1 axes; expected .* with 3.*exchanged"):
        load_mnist(folder)
    file.write_bytes(idx_bytes(arrays["t10k-images-idx3-ubyte.gz"]))
    with pytest.raises(ValueError, match=r"5 images but .* 20 labels"):
        load_mnist(folder)
    file.write_bytes(idx_bytes(np.zeros((20, 8, 8), np.uint8)))
    with pytest.raises(ValueError, match=r"shape \(8, 8\)"):
        load_mnist(folder)


def test_read_idx_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        idx.read_idx(tmp_path / "absent", axes=1)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()
        thread.join()


@pytest.fixture
def cache(
    server: str, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A new cache folder, with the server in the place of the real one."""
    pytest.importorskip("pooch")
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.delenv("TILEFUSE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mnist, "URL", server)
    monkeypatch.setattr(
        mnist, "SHA256", {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}
    )
    return cache


def test_download_is_kept(cache: Path, folder: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_same(load_mnist(), arrays)
    for name in NAMES:
        (folder / name).unlink()  # the second time nothing is downloaded
    assert_same(load_mnist(), arrays)
    assert {file.name for file in (cache / "tilefuse" / "mnist").iterdir()} == set(NAMES)


def test_damaged_cache_is_mended(cache: Path, arrays: dict[str, np.ndarray]) -> None:
    load_mnist()
    (cache / "tilefuse" / "mnist" / NAMES[0]).write_bytes(b"half a fi")
    assert_same(load_mnist(), arrays)


def test_download_with_wrong_checksum(cache: Path, folder: Path) -> None:
    (folder / NAMES[1]).write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"train-labels.* is not the file it should be.*TILEFUSE_DATA"):
        load_mnist()


def test_download_fails(cache: Path, folder: Path) -> None:
    (folder / NAMES[0]).unlink()
    with pytest.raises(OSError, match=r"could not download .*train-images.*404.*TILEFUSE_DATA"):
        load_mnist()


def test_download_without_pooch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILEFUSE_DATA", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "tilefuse\[download\]"'):
        load_mnist()


def test_to_categorical() -> None:
    expected = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    one_hot = utils.to_categorical([0, 2, 1])
    assert one_hot.dtype == np.float32
    np.testing.assert_array_equal(one_hot, expected)
    np.testing.assert_array_equal(utils.to_categorical(np.array([[0], [2], [1]], np.uint8), 3), expected)
    np.testing.assert_array_equal(utils.to_categorical([0.0, 2.0, 1.0]), expected)
    assert utils.to_categorical(np.zeros((2, 3), int), 4).shape == (2, 3, 4)
    assert utils.to_categorical([], 4).shape == (0, 4)
    assert utils.to_categorical([]).shape == (0, 0)


def test_to_categorical_refuses() -> None:
    with pytest.raises(ValueError, match=r"\[0, 3\), got 0 to 3"):
        utils.to_categorical([0, 3], 3)
    with pytest.raises(ValueError, match="got -1 to 0"):
        utils.to_categorical([0, -1], 3)
    with pytest.raises(TypeError, match="float64"):
        utils.to_categorical([0.5])
    with pytest.raises(TypeError, match="integer class numbers"):
        utils.to_categorical(["a"])


def test_normalize() -> None:
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(utils.normalize(x), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(utils.normalize(x, axis=0, order=1), [[1, 1], [0, 0]])
    assert utils.normalize(np.array([3, 4], np.int32)).dtype == np.float32
