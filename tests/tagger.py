"""The tiny model with a head that labels by chance."""

from __future__ import annotations

from pathlib import Path

import torch

from slmops.models.source import load_model, save_model
from slmops.models.tag_head import TagHead, attach
from slmops.tasks.marking import Marking
from tests.tiny_task import SCHEMA, TASK


def save_tagger(source: Path, folder: Path) -> None:
    """Write the model in `source` to `folder` with such a head, the same one at every call."""
    model = load_model(source)
    head = TagHead(model.config.hidden_size, Marking.of(SCHEMA).sizes, TASK.describe())
    torch.nn.init.normal_(head.matrix, std=0.02, generator=torch.Generator().manual_seed(3))
    attach(model, head)
    save_model(model, folder, tokenizer_from=source)
