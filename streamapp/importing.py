"""What importing costs, and when it is paid.

A worker that is started again is awaited by its readers, and most of that time goes into imports. What only records need
can come later: `Postponed` stands for a module until something of it is used, and `load_columns` brings polars and numpy in
by a thread, so that no event loop waits for them. `uncollected` keeps the collector from looking for garbage among modules.
"""

import contextlib
import functools
import gc
import importlib
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Postponed", "load_columns", "np", "pl", "uncollected"]

_loading = threading.RLock()


class Postponed:
    """A module that is imported by the first use of anything in it; safe in any thread.

    Annotations that name it are quoted: else they would be its first use.

    Args:
        name: the module's full name.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        """What the module has under this name, from the second time on without coming here."""
        found = vars(self)[name] = getattr(_load(self.__name__), name)
        return found


if TYPE_CHECKING:
    import numpy as np
    import polars as pl
else:
    np = Postponed("numpy")
    pl = Postponed("polars")


def load_columns() -> None:
    """Import what large chunks are worked on with; blocks for some 0.2 s of processor time, once."""
    _load("polars")


def _load(name: str) -> ModuleType:
    with _loading:
        return _loaded(name)


@functools.cache
def _loaded(name: str) -> ModuleType:
    module = importlib.import_module(name)
    if name == "polars":
        # it takes numpy in at first use, by a way that fails where two threads come to it at once ("'module' object does
        # not support item assignment"), as those of two lanes do with their first large chunks: so it is used here
        module.Series(importlib.import_module("numpy").empty(0))
    return module


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Hold the garbage collector off while modules are imported.

    Nearly all that an import makes stays: the collector walks over it again and again, for an eighth of the time, and finds
    nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
