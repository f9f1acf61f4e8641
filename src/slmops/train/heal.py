"""Text without answers as training examples, and how far a cut student is from the uncut model on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slmops.data.check import Screen
from slmops.data.read import read_jsonl
from slmops.data.text import read_texts
from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.progress import Progress
from slmops.recipe.objective import ForwardKl
from slmops.tasks.base import Task
from slmops.train.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slmops.train.objectives.observe import TeacherModel

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 16
"""Blocks that are measured and never trained on: enough to tell nats apart, few enough to run both models over."""


@dataclass(frozen=True)
class Blocks:
    """A text in blocks, each an example whose prompt is its first token: every other token is predicted.

    Attributes:
        train: blocks to train on, in no order.
        held_out: others, to measure on; at least one.
        passes: over `train`, a fraction at the end.
        text_tokens: of the whole text.
    """

    train: list[Example]
    held_out: list[Example]
    passes: float
    text_tokens: int

    @property
    def tokens(self) -> int:
        """To train on, in all passes."""
        return round(self.passes * sum(map(len, self.train)))


def packed(texts: Iterable[Sequence[int]], *, end: int, length: int) -> list[npt.NDArray[np.int32]]:
    """Texts end to end, each with the token `end` behind it, cut every `length` tokens; the last block may be shorter.

    No token is left out or comes twice. A block may hold the end of one text and the beginning of others; what stands
    before is read as context, by student and uncut model alike.
    """
    stream = np.fromiter((token for text in texts for token in (*text, end)), dtype=np.int32)
    return [stream[start : start + length] for start in range(0, len(stream), length)]


def choose_blocks(
    blocks: Sequence[npt.NDArray[np.int32]], *, tokens: int, most_passes: float, length: int, seed: int
) -> Blocks:
    """Blocks drawn by `seed` to train on and to measure on.

    Args:
        tokens: to train on. Where the text is longer, as many blocks are drawn; where it is shorter, it is gone over
            again, `most_passes` times at most.
        length: tokens of a whole block.

    Raises:
        BadInput: there are fewer than two blocks.
    """
    count = sum(map(len, blocks))
    usable = [block for block in blocks if len(block) > 1]  # a lone token predicts nothing
    if len(usable) < 2:
        raise BadInput(
            f"student.heal: the text has {count} tokens, and it takes two blocks of {length}: one to train on and one "
            "to measure on",
            hint="give more text, or lower student.heal.length",
        )
    order = np.random.default_rng(seed).permutation(len(usable))
    apart = min(MOST_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(usable))))
    drawn = order[apart : apart + math.ceil(tokens / length)]
    train = [_example(usable[i]) for i in drawn]
    passes = min(most_passes, max(1.0, tokens / sum(map(len, train))))
    return Blocks(train, [_example(usable[i]) for i in order[:apart]], passes, count)


def _example(block: npt.NDArray[np.int32]) -> Example:
    first, *rest = block.tolist()
    return Example((first,), tuple(rest))


def text_blocks(
    files: Sequence[Path],
    data: Path,
    task: Task,
    tokenizer: Tokenizer,
    *,
    column: str,
    length: int,
    progress: Progress,
) -> list[npt.NDArray[np.int32]]:
    """The text to heal on in blocks of `length` tokens: that of `files`, or where there are none of the rows in `data`.

    Of files, a text that is also a row of test or validation is left out, and so is one that comes again. Of rows, the
    prompts of pool and train are taken without any answer: what the teacher learned must not reach the baseline.

    Raises:
        BadInput: see `read_texts`.
    """
    end = end_of_answer(tokenizer)
    if not files:
        rows = (row for side in ("pool", "train") for row in read_jsonl(data / f"{side}.jsonl"))
        return packed((tokenizer.prompt(task.render(row["input"])) for row in rows), end=end, length=length)
    screen = Screen()
    for side in ("test", "validation"):
        screen.remember(read_jsonl(data / f"{side}.jsonl"), side)
    texts = ({"id": path.name, "input": text} for path in files for text in read_texts(path, column))
    blocks = packed(_encoded(screen.sift(texts, "text"), tokenizer, progress), end=end, length=length)
    if screen.dropped:
        progress.note(f"left out {len(screen.dropped)} texts that come again, or are rows of test or validation")
    return blocks


def _encoded(rows: Iterable[Mapping[str, str]], tokenizer: Tokenizer, progress: Progress) -> Iterator[list[int]]:
    with progress.task("read text", None, "tokens") as bar:
        for row in rows:
            tokens = tokenizer.encode(row["input"])
            yield tokens
            bar.advance(len(tokens))


def check_length(model: Path, length: int) -> None:
    """Refuse blocks that do not fit the context of the model in folder `model`.

    Raises:
        BadInput: they do not.
    """
    context = json.loads((model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    if length > context:
        raise BadInput(
            f"student.heal.length {length} is longer than the model's context of {context} tokens",
            hint=f"set it to {context} at most",
        )


@dataclass(frozen=True)
class Distance:
    """How far a student is from the uncut model on a text.

    Attributes:
        kl: KL(uncut ‖ student), the mean over positions, in nats.
        perplexity: of the text itself, under the student.
        uncut_perplexity: under the uncut model, which is what the student is led to.
    """

    kl: float
    perplexity: float
    uncut_perplexity: float


def distance(
    student: PreTrainedModel, teacher: TeacherModel, blocks: Sequence[Example], *, batch_tokens: int
) -> Distance:
    """How far `student` is from the uncut model on `blocks`."""
    import torch

    from slmops.train.collate import collate
    from slmops.train.objectives.divergences import kl
    from slmops.train.objectives.imitate import Imitation
    from slmops.train.objectives.outcomes import full

    imitation = Imitation([ForwardKl(logits="online")], student, teacher=teacher)
    rows = max(1, batch_tokens // max(map(len, blocks)))
    nats, positions = np.zeros(3), 0
    with torch.inference_mode():
        for start in range(0, len(blocks), rows):
            view = imitation.view(student, collate(blocks[start : start + rows], pad=0))
            assert view.teacher_logits is not None  # noqa: S101
            uncut, ours = full(view.logits, view.teacher_logits, view.kept)
            written = view.target[:, None]
            parts = kl(uncut, ours), -ours.gather(1, written), -uncut.gather(1, written)
            nats += [float(part.sum()) for part in parts]
            positions += len(written)
    divergence, own, theirs = (float(mean) for mean in nats / positions)
    return Distance(divergence, math.exp(own), math.exp(theirs))
