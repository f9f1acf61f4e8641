"""The tiny model with a head that labels by chance."""

from __future__ import annotations

from pathlib import Path

import torch

from slmops.engines.reading import marking_of
from slmops.models.source import load_model, save_model
from slmops.models.tag_head import TagHead, attach
from slmops.tasks import Task
from tests.tiny_task import TASK


def save_tagger(source: Path, folder: Path, task: Task = TASK) -> None:
    """Write the model in `source` to `folder` with such a head for `task`, the same one at every call."""
    model = load_model(source)
    head = TagHead(model.config.hidden_size, marking_of(task.describe()).sizes, task.describe())
    torch.nn.init.normal_(head.matrix, std=0.02, generator=torch.Generator().manual_seed(3))
    attach(model, head)
    save_model(model, folder, tokenizer_from=source)
