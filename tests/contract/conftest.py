"""Every running batch, with the model that knows its answers by heart."""

from __future__ import annotations

import pytest

from slmops.compress.convert import convert
from slmops.engines import RUNNING, Running, load_running
from slmops.recipe.compress import CompressSettings
from tests.runtimes import needs

SLOTS = 4


@pytest.fixture(scope="module", params=sorted(RUNNING))
def running(request, tiny, tiny_onnx, tmp_path_factory) -> Running:
    needs(request.param)
    folder = {"transformers": tiny.folder}.get(request.param, tiny_onnx)
    if request.param == "llama.cpp":
        made = tmp_path_factory.mktemp("gguf")
        folder = made / "model"
        settings = CompressSettings(precision="fp32", runtime="llama.cpp")
        convert(tiny.folder, folder, settings, scratch=made / "scratch")
    return load_running(request.param, folder, slots=SLOTS, threads=1)
