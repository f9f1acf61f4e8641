"""Runtimes that are installed apart: where one is missing, its tests are left out, and say so."""

from __future__ import annotations

import pytest

from slmops.errors import BadInput
from slmops.olive.environment import olive_versions

_APART = {
    "llama.cpp": ("llama_cpp", "it is compiled, and installed apart"),
    "openvino": ("openvino", "it is installed apart: pip install 'slmops[openvino]'"),
}


def needs(engine: str) -> None:
    """Skip what cannot run without the package of `engine`."""
    if engine in _APART:
        module, reason = _APART[engine]
        pytest.importorskip(module, reason=reason)


def needs_olive() -> None:
    """Skip what cannot run without Olive, saying what is missing."""
    try:
        olive_versions()
    except BadInput as error:
        pytest.skip(f"{error}: {error.hint}")
