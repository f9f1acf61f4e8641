"""The layers of a model that labels, through OpenVINO: sequences lie end to end, and nothing is padded."""

from __future__ import annotations

import os
from pathlib import Path

from slmops.engines.base import EngineInfo, Logits, Prompts
from slmops.engines.decoding import in_rows
from slmops.engines.onnx_file import info_of
from slmops.engines.openvino import NAME
from slmops.engines.openvino_cache import Cache, Model


class OpenVinoBody:
    """A folder with `genai_config.json` whose graph ends before the head; see `slmops.engines.tagging.Body`."""

    def __init__(self, model: Model, folder: Path) -> None:
        self._model, self._folder = model, folder
        self.vocabulary = model.vocabulary

    @classmethod
    def load(cls, folder: Path, *, threads: int = 0) -> OpenVinoBody:
        """See `load_engine`."""
        return cls(Model(folder, threads or len(os.sched_getaffinity(0))), folder)

    def states(self, sequences: Prompts) -> Logits:
        """See `Body.states`."""
        cache = Cache(self._model, len(sequences), max(map(len, sequences)))
        return in_rows(cache.run(dict(enumerate(sequences))), sequences)

    def info(self) -> EngineInfo:
        """See `Body.info`."""
        return info_of(self._folder, NAME, context=self._model.context, threads=self._model.threads)
