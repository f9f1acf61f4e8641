"""Cutting the student out of its teacher, or out of another model: each choice is made on what those before it left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.models.carve import keep_layers, keep_tokens
from slmops.models.source import count_parameters
from slmops.models.tokenizer import Tokenizer
from slmops.models.width import check_width, keep_channels, keep_heads
from slmops.progress import Progress
from slmops.recipe.student import Carve
from slmops.tasks.base import Task
from slmops.teach.answers import Answer
from slmops.train.choose import MEASURED_ROWS, WEIGHED_ROWS, choose_layers, choose_tokens, choose_width
from slmops.train.prepare import retold_examples, taught_examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "carve.json"


@dataclass(frozen=True)
class Kept:
    """What a student keeps of its teacher; None where it keeps all.

    Attributes:
        tokens: the teacher's id of each of the student's tokens, ascending.
        layers: the teacher's layer numbers, ascending.
        heads: for each kept layer the numbers of its key-value heads, ascending.
        channels: for each kept layer the numbers of its feed-forward channels, ascending.
        of_teacher: false where the student is cut from another model, whose tokens and layers these are.
    """

    tokens: list[int] | None
    layers: list[int]
    heads: list[list[int]] | None
    channels: list[list[int]] | None
    of_teacher: bool = True


def choose_and_cut(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    task: Task,
    data: Path,
    answers: Sequence[Answer],
    settings: Carve,
    *,
    teachers_ends: Collection[int] | None = None,
    progress: Progress,
) -> tuple[Tokenizer, Kept]:
    """Cut `model` in place; returns the student's tokenizer and what was kept.

    Tokens go first, as weighing layers is cheaper with fewer of them; heads and channels are measured last, in the
    layers that remain: what reaches a layer is no longer what the teacher's layers gave it.

    Args:
        teachers_ends: where `model` is none of the teacher's, the tokens that end an answer of the teacher's; the
            answers are then read in the words of `tokenizer`.

    Raises:
        BadInput: the tokenizer cannot be trimmed, or the model not be cut to that width.
    """
    check_width(model, heads=settings.heads, channels=settings.channels)
    own, judged = teachers_ends is not None, answers[: max(WEIGHED_ROWS, MEASURED_ROWS)]
    written = [tokenizer.encode(answer.text) if own else answer.tokens.tolist() for answer in answers]
    tokenizer, tokens = choose_tokens(tokenizer, task, data, written, settings)
    if tokens is not None:
        keep_tokens(model, tokens)
    if not _judges(settings):
        examples = []
    elif teachers_ends is None:
        examples = taught_examples(judged, task, tokenizer, tokens)
    else:
        examples = retold_examples(judged, task, tokenizer, teachers_ends)
    layers = choose_layers(model, examples, settings, progress=progress)
    keep_layers(model, layers)
    heads, channels = choose_width(model, examples, settings, progress=progress)
    _narrow(model, heads, channels)
    return tokenizer, Kept(tokens, layers, heads, channels, of_teacher=not own)


def _judges(settings: Carve) -> bool:
    """Whether a choice is made on the teacher's answers: a student of frequent tokens alone could not read them."""
    return settings.choose not in ("first", "even") or settings.heads is not None or settings.channels is not None


def cut(model: PreTrainedModel, kept: Kept) -> None:
    """Keep the same parts of another model of the same shape, in place."""
    if kept.tokens is not None:
        keep_tokens(model, kept.tokens)
    keep_layers(model, kept.layers)
    _narrow(model, kept.heads, kept.channels)


def _narrow(model: PreTrainedModel, heads: list[list[int]] | None, channels: list[list[int]] | None) -> None:
    if heads is not None:
        keep_heads(model, heads)
    if channels is not None:
        keep_channels(model, channels)


def size_of(model: PreTrainedModel) -> dict[str, int]:
    """Layers, tokens, key-value heads and query heads and channels of a layer, and weights in all."""
    config = model.config
    return {
        "layers": config.num_hidden_layers,
        "tokens": config.vocab_size,
        "heads": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        "query_heads": config.num_attention_heads,
        "channels": config.intermediate_size,
        "parameters": count_parameters(model),
    }


def read_kept(folder: Path) -> Kept:
    """What the student in the artifact `folder` kept."""
    record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return Kept(**{field.name: record[field.name] for field in fields(Kept)})


def carry_kept(folder: Path, out: Path) -> None:
    """Put what the student in the artifact `folder` kept beside a model that was made of it, to `out`."""
    shutil.copyfile(folder / _FILE, out / _FILE)


def write_kept(folder: Path, kept: Kept, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Write `carve.json`: what was kept, and the sizes before and after; what was removed is the difference."""
    record = asdict(kept) | {"before": before, "after": after}
    (folder / _FILE).write_text(json.dumps(record) + "\n", encoding="utf-8")
