"""Where the C library lies that is installed with the package."""

from __future__ import annotations

from pathlib import Path


def get_include() -> str:
    """Return the folder of the C headers: ``#include <tilefuse/tilefuse.h>`` for ``-I`` with this.

    Returns
    -------
    str
        An absolute path. The library is in ``lib`` beside it: ``libtilefuse.so`` and ``libtilefuse.a``.

    Examples
    --------
    >>> import os, tilefuse
    >>> os.path.isfile(os.path.join(tilefuse.get_include(), "tilefuse", "tilefuse.h"))
    True
    """
    return _folder("include")


def get_cmake_dir() -> str:
    """Return the folder with which CMake's ``find_package(tilefuse CONFIG)`` finds the C library.

    Returns
    -------
    str
        An absolute path, for ``-Dtilefuse_DIR=``. The targets are ``tilefuse::tilefuse`` and
        ``tilefuse::tilefuse_static``.

    Examples
    --------
    >>> import os, tilefuse
    >>> sorted(os.listdir(tilefuse.get_cmake_dir()))[0]
    'tilefuse-config-version.cmake'
    """
    return _folder("lib/cmake/tilefuse")


def _folder(name: str) -> str:
    from . import _core

    # Beside the extension: of an editable installation, the rest of the package lies elsewhere.
    folder = Path(_core.__file__).resolve().parent / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing: tilefuse was built but not installed. Install it with pip, or take the "
            "folder below the prefix of cmake --install."
        )
    return str(folder)
