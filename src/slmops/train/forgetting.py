"""What a model unlearns of general text while it learns a task: its perplexity there, before and after.

Without a text of the user's the model as it comes writes one. Of text that is sampled from p, the mean of log p - log q
is an estimate of KL(p ‖ q): how far the tuned model q has gone from what it was, in nats per token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slmops.errors import BadInput
from slmops.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slmops.models.tokenizer import Tokenizer
    from slmops.train.examples import Example

PASSAGES, LENGTH = 16, 32
"""Of the general text, and tokens of each: few, since the model is run over them on the processor too."""

FORGOTTEN_NATS = 0.25
"""Per token: the perplexity has risen by more than a quarter."""

_SEED = 0
"""The text is the same in every run of a model, whatever the recipe's seed, so that runs compare."""


@dataclass(frozen=True)
class General:
    """A general text, and what the model as it comes makes of it.

    Attributes:
        passages: tokens; the first of each is read alone, the others are predicted.
        bytes: of those others, in UTF-8.
        nats: of the predicted tokens of each passage, under the model as it comes.
    """

    passages: list[list[int]]
    bytes: int
    nats: list[float]

    @property
    def tokens(self) -> int:
        """That are predicted."""
        return sum(len(passage) - 1 for passage in self.passages)


def general(folder: Path, text: Path | None, work: Path, progress: Progress) -> General:
    """The passages of `text`, or where there is none those that the model in `folder` writes, as it finds them now.

    What it wrote is kept in `work`, so a training that goes on after a kill is held against the same.

    Args:
        text: plain text, or rows with a column `text`; passages are taken from its beginning.

    Raises:
        BadInput: the text cannot be read, or is shorter than a passage.
    """
    from slmops.models.device import fastest_device
    from slmops.models.source import load_model
    from slmops.models.tokenizer import Tokenizer

    kept = work / "general.json"
    if kept.exists():
        return General(**json.loads(kept.read_text(encoding="utf-8")))
    model, tokenizer = load_model(folder, device=fastest_device()).eval(), Tokenizer.load(folder)
    with progress.task("read general text", None, "tokens"):
        passages = _of_file(text, tokenizer) if text else _own(model, tokenizer)
        written = sum(len(tokenizer.decode(passage[1:]).encode()) for passage in passages)
        found = General(passages, max(1, written), nats_of(model, passages))
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(asdict(found)), encoding="utf-8")
    part.replace(kept)
    return found


def _of_file(text: Path, tokenizer: Tokenizer) -> list[list[int]]:
    from slmops.data.text import read_texts
    from slmops.models.tokenizer import end_of_answer
    from slmops.train.heal import packed

    # A text takes a token at least, so these are enough.
    texts = (tokenizer.encode(one) for one in islice(read_texts(text, "text"), PASSAGES * (LENGTH + 1)))
    blocks = packed(texts, end=end_of_answer(tokenizer), length=LENGTH + 1)
    passages = [block.tolist() for block in blocks[:PASSAGES] if len(block) > 1]
    if not passages:
        raise BadInput(f"{text}: holds no text of two tokens", hint="give train.general_text some pages")
    return passages


def _own(model: PreTrainedModel, tokenizer: Tokenizer) -> list[list[int]]:
    """Sampled at temperature 1 from behind the end of a text, by chances of its own."""
    from slmops.models.tokenizer import end_of_answer
    from slmops.train.on_policy import OwnAnswers, sample

    start = (end_of_answer(tokenizer),)
    how = OwnAnswers(1.0, 1.0, LENGTH, frozenset())
    answers = sample(model, [start] * PASSAGES, how, np.random.default_rng(_SEED))
    return [[*start, *answer] for answer in answers]


def nats_of(model: PreTrainedModel, passages: Sequence[Sequence[int]]) -> list[float]:
    """-Σ log p of the predicted tokens of each passage; no chance is drawn."""
    import torch

    from slmops.train.collate import collate
    from slmops.train.examples import Example
    from slmops.train.objectives.observe import answer_logits
    from slmops.train.trunk import batches

    examples = [Example((passage[0],), tuple(passage[1:])) for passage in passages]
    nats = [0.0] * len(examples)
    with torch.inference_mode():
        for batch in batches(examples, model.device.type):
            taken: list[Example] = [examples[i] for i in batch]
            inputs = {name: tensor.to(model.device) for name, tensor in collate(taken, pad=0).items()}
            said = answer_logits(model, inputs).log_softmax(-1).gather(1, inputs["target"][:, None])[:, 0]
            for i, own in zip(batch, torch.split(said, [len(one.answer) for one in taken]), strict=True):
                nats[i] = -float(own.double().sum())
    return nats


@dataclass(frozen=True)
class Forgetting:
    """The text before and after a training.

    Attributes:
        before, after: nats of each passage.
        tokens, bytes: of all passages.
    """

    before: Sequence[float]
    after: Sequence[float]
    tokens: int
    bytes: int

    @property
    def rise(self) -> float:
        """Mean nats that a token has become less likely by."""
        return (sum(self.after) - sum(self.before)) / self.tokens

    @property
    def error(self) -> float:
        """Standard error of `rise` over passages, which are compared each with itself."""
        if len(self.before) < 2:
            return math.inf
        rises = np.subtract(self.after, self.before)
        return float(rises.std(ddof=1) * math.sqrt(len(rises)) / self.tokens)

    def figures(self) -> dict[str, float | str]:
        """Perplexity per token, and bits per byte, which compare between models of unlike tokens."""
        return {
            f"general_{name}_{when}": value
            for when, nats in (("before", sum(self.before)), ("after", sum(self.after)))
            for name, value in (
                ("perplexity", math.exp(nats / self.tokens)),
                ("bits_per_byte", nats / math.log(2) / self.bytes),
            )
        }

    def warning(self, *, full: bool) -> str | None:
        """What has to be said of it: it is more than `FORGOTTEN_NATS`, and more than twice its error.

        Args:
            full: every weight was moved.
        """
        if self.rise <= max(FORGOTTEN_NATS, 2 * self.error):
            return None
        before, after = (math.exp(sum(nats) / self.tokens) for nats in (self.before, self.after))
        method = "take method: lora" if full else "lower adapter.rank"
        return (
            f"forgetting: the perplexity of general text rose from {before:.3g} to {after:.3g}; lower learning_rate, "
            f"{method}, train for fewer epochs, or mix general rows into data.train"
        )
