"""Producers of DLPack written by hand: any version, flags, strides and device, their deleter's calls counted.

The structures are those of https://dmlc.github.io/dlpack/latest/c_api.html.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

CPU, CUDA, READ_ONLY, IS_COPIED = 1, 2, 1, 2
CODES = {"i": 0, "u": 1, "f": 2, "bfloat": 4, "c": 5, "b": 6}


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = (
    ctypes.py_object,
    [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
)
_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype, _capsule_name.argtypes = ctypes.c_char_p, [ctypes.py_object]


class Producer:
    """Hands over the memory of a NumPy array; `deleted` counts how often it was given back.

    Capsules that nobody takes are not freed.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        versioned: bool = True,
        version: int = 1,
        flags: int = 0,
        strides: Sequence[int] | None = (),
        byte_offset: int = 0,
        device: tuple[int, int] = (CPU, 0),
        code: int | None = None,
        lanes: int = 1,
        null: bool = False,
    ) -> None:
        self.array, self.deleted, self.asked = array, 0, []
        self._versioned, self._device = versioned, device
        whole = [stride // max(array.itemsize, 1) for stride in array.strides] if strides == () else strides
        self._shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self._strides = None if whole is None else (ctypes.c_int64 * array.ndim)(*whole)
        self._delete = _Deleter(self._count)
        self._managed = (ManagedVersioned if versioned else Managed)()
        self._managed.deleter = self._delete
        if versioned:
            self._managed.major, self._managed.flags = version, flags
        tensor = self._managed.tensor
        tensor.data = None if null else array.ctypes.data - byte_offset
        tensor.device_type, tensor.device_id = device
        tensor.ndim, tensor.byte_offset = array.ndim, byte_offset
        tensor.code = CODES[array.dtype.kind] if code is None else code
        tensor.bits, tensor.lanes = 8 * array.itemsize, lanes
        tensor.shape = ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64))
        if self._strides is not None:
            tensor.strides = ctypes.cast(self._strides, ctypes.POINTER(ctypes.c_int64))

    def _count(self, managed: Any) -> None:
        self.deleted += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **how: Any) -> Any:
        self.asked.append(how)
        if how and not self._versioned:
            raise TypeError(f"unexpected keyword arguments {sorted(how)}")  # as before there were any
        name = b"dltensor_versioned" if self._versioned else b"dltensor"
        self.capsule = _new_capsule(ctypes.addressof(self._managed), name, None)
        return self.capsule

    @property
    def capsule_name(self) -> str:
        return _capsule_name(self.capsule).decode()


class _Header(ctypes.Structure):
    pass


_Header._fields_ = [
    ("major", ctypes.c_uint32),
    ("minor", ctypes.c_uint32),
    ("previous", ctypes.POINTER(_Header)),
]

_ManagedOf = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))
_ObjectOf = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
_View = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))


class _Table(ctypes.Structure):
    _fields_ = [
        ("header", _Header),
        ("allocate", ctypes.c_void_p),
        ("managed_of", _ManagedOf),
        ("object_of", _ObjectOf),
        ("view", _View),
        ("current_stream", ctypes.c_void_p),
    ]


class Tabled:
    """Arrays of a library with an exchange table, over NumPy's. Each counts what became of its memory.

    A subclass has the table `table`, made by `exchange_table`.
    """

    def __init__(self, array: np.ndarray, **how: Any) -> None:
        self.producer = Producer(array, **how)

    @property
    def array(self) -> np.ndarray:
        return self.producer.array

    def __dlpack__(self, **how: Any) -> Any:
        raise AssertionError("there is a table")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.producer.__dlpack_device__()


def tabled(*, version: int = 1, older: type | None = None, view: bool = True, fails: bool = False) -> Any:
    """A new type of arrays with an exchange table; `calls` lists the functions of it that were called."""

    def managed_of(x: Any, made: Any) -> int:
        kind.calls.append("managed_of")
        made[0] = ctypes.addressof(x.producer._managed)
        return 0

    def object_of(memory: int, made: Any) -> int:
        kind.calls.append("object_of")
        managed = ManagedVersioned.from_address(memory)
        tensor = managed.tensor
        shape = tensor.shape[: tensor.ndim]
        ctype = {32: ctypes.c_float, 64: ctypes.c_double, 8: ctypes.c_bool}[tensor.bits]
        size = int(np.prod(shape))
        kept = np.ctypeslib.as_array((ctype * size).from_address(tensor.data or 0)).reshape(shape).copy()
        managed.deleter(memory)
        result = kind(kept)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(result))
        made[0] = id(result)
        return 0

    def fill(x: Any, tensor: Any) -> int:
        kind.calls.append("view")
        if fails:
            return -1
        ctypes.memmove(tensor, ctypes.addressof(x.producer._managed.tensor), ctypes.sizeof(Tensor))
        return 0

    table = _Table()
    table.header.major = version
    if older is not None:
        table.header.previous = ctypes.pointer(older.table.header)
    table.managed_of, table.object_of = _ManagedOf(managed_of), _ObjectOf(object_of)
    if view:
        table.view = _View(fill)
    capsule = _new_capsule(ctypes.addressof(table), b"dlpack_exchange_api", None)
    kind: Any = type("Tabled", (Tabled,), {"table": table, "__dlpack_c_exchange_api__": capsule, "calls": []})
    return kind
