"""A model that is trained already, cut to the tokens that the user's own rows are made of."""

from __future__ import annotations

from pathlib import Path

from slmops.errors import BadInput
from slmops.models.carve import keep_tokens
from slmops.models.source import load_model, save_model
from slmops.models.tag_files import is_tagger
from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trimmed
from slmops.tasks import task_of
from slmops.teach.used_tokens import used_tokens


def cut_vocabulary(
    model: Path, data: Path, out: Path, *, extra_tokens: int, answers: Path | None = None
) -> dict[str, float]:
    """Write the model in folder `model` to `out` with the tokens of `data` and `extra_tokens` frequent others.

    Embedding and head lose the rows of all other tokens, and the tokenizer cannot write them any more. A text whose
    tokens are all kept is read as before, and what follows on it has the same logits; any other is spelled in smaller
    pieces (`slmops.models.vocabulary`).

    Args:
        data: what the data stage wrote.
        answers: a folder with the answers of a teacher that the model learned from.

    Returns:
        `tokens`, and `tokens_before`.

    Raises:
        BadInput: the model labels, or its tokenizer cannot be trimmed.
    """
    if is_tagger(model):
        raise BadInput(
            "the vocabulary of a model that labels is not cut behind its training",
            hint="set compress.vocabulary: keep; a recipe cuts it before (student.carve.vocabulary: trim)",
        )
    whole = Tokenizer.load(model)
    tokenizer, kept = trimmed(whole, used_tokens(whole, task_of(data), data, answers), extra=extra_tokens)
    loaded = load_model(model)
    before = loaded.config.vocab_size
    keep_tokens(loaded, kept)
    save_model(loaded, out)
    tokenizer.save(out)
    return {"tokens": float(len(kept)), "tokens_before": float(before)}
