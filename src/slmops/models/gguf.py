"""Reading a GGUF file in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, GGUF files are parsed once each, however often transformers asks for them.

    For the tokenizer, the configuration and the weights it parses the same file three times, and for the weights it
    builds the same table of tensor names once per module: five sixths of the time, all of it Python.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        def _get(self, *arguments: Any, **named: Any) -> Any:
            # A slice of a mapped file is a mapped file of its own, and to make one takes longer than to read it.
            self.data = cast(Any, np.asarray(self.data))
            return super()._get(*arguments, **named)

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in {**slow, "GGUFReader": Reader}.items():
            setattr(gguf, name, cache(function))
        yield
    finally:
        for name, function in slow.items():
            setattr(gguf, name, function)
