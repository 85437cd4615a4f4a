"""The native library: found, loaded and tried out, or done without.

It is built from native/ where a Rust compiler is at hand (`make native`, and on installing); everything works without it,
slower. It is called through ctypes, which lets go of the interpreter's lock for the length of each call.
"""

import ctypes
import functools
import logging
from pathlib import Path
from typing import Literal

from streamapp.errors import ConfigurationError

log = logging.getLogger(__name__)

Mode = Literal["auto", "off", "required"]
_ABI = 1
_PATH = Path(__file__).parent / "_native.so"


class BatchView(ctypes.Structure):
    """One batch, as native/src/batch.rs reads it."""

    _fields_ = (
        ("records", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("count", ctypes.c_size_t),
        ("base_offset", ctypes.c_int64),
        ("first_timestamp", ctypes.c_int64),
        ("max_timestamp", ctypes.c_int64),
        ("min_offset", ctypes.c_int64),
        ("max_value_bytes", ctypes.c_size_t),
        ("log_append_time", ctypes.c_uint8),
    )


class Column(ctypes.Structure):
    """The memory of one column."""

    _fields_ = (("values", ctypes.c_void_p), ("nulls", ctypes.c_void_p))


class Rows(ctypes.Structure):
    """The memory that a chunk is decoded into."""

    _fields_ = (
        ("capacity", ctypes.c_size_t),
        ("offsets", ctypes.c_void_p),
        ("timestamps", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("value_at", ctypes.c_void_p),
        ("value_length", ctypes.c_void_p),
        ("unsure", ctypes.c_void_p),
        ("columns", ctypes.POINTER(Column)),
    )


@functools.cache
def load(mode: Mode) -> ctypes.CDLL | None:
    """The library with its signatures; None where it is off, or absent and not required.

    Raises:
        ConfigurationError: it is required, and absent or of another version.
    """
    if mode == "off":
        return None
    problem = "it has not been built"
    if _PATH.exists():
        try:
            library = ctypes.CDLL(str(_PATH))
            _declare(library)
            found = library.streamapp_abi()
        except (OSError, AttributeError) as broken:
            problem = str(broken)
        else:
            if found == _ABI:
                return library
            problem = f"expected version {_ABI}, got {found}: build it again"
    if mode == "required":
        raise ConfigurationError(
            f"STREAMAPP_NATIVE=required, but the native library cannot be used: {problem}; run `make native` (needs cargo)"
        )
    log.info("records are decoded without the native library (%s); `make native` builds it", problem)
    return None


def _declare(library: ctypes.CDLL) -> None:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.streamapp_abi.restype = ctypes.c_uint32
    library.streamapp_decoder_new.argtypes = (ctypes.c_char_p, size)
    library.streamapp_decoder_new.restype = pointer
    library.streamapp_decoder_free.argtypes = (pointer,)
    library.streamapp_decoder_free.restype = None
    library.streamapp_decoder_clear.argtypes = (pointer,)
    library.streamapp_decoder_clear.restype = None
    library.streamapp_decode.argtypes = (
        pointer,
        ctypes.POINTER(BatchView),
        ctypes.POINTER(Rows),
        size,
        ctypes.POINTER(size),
    )
    library.streamapp_decode.restype = ctypes.c_int64
    library.streamapp_texts.argtypes = (
        pointer,
        ctypes.c_int64,
        ctypes.POINTER(pointer),
        ctypes.POINTER(size),
        ctypes.POINTER(pointer),
    )
    library.streamapp_texts.restype = size
