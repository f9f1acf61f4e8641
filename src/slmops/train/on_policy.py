"""On-policy distillation: answers that the student writes while it is trained, for the teacher to judge.

Agarwal et al. 2024 (GKD), Algorithm 1: with probability λ the answers of a batch are sampled from the student as it is.
No gradient goes through the sampling.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from slmops.models.cached import CachedBatch
from slmops.train.examples import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WORTH_SHRINKING = 0.75
"""A batch shrinks when no more than this share of it is still written: to shrink copies the cache."""


@dataclass(frozen=True)
class OwnAnswers:
    """How a student writes answers of its own.

    Attributes:
        fraction: λ, the share of the batches that get such answers, in 0..1.
        temperature: of the sampling, above 0; 1 is the student's own distribution.
        max_tokens: of an answer, the end token included.
        end_ids: tokens that end an answer.
    """

    fraction: float
    temperature: float
    max_tokens: int
    end_ids: frozenset[int]


class Writer:
    """Has the student answer the prompts of some batches of one training.

    Which batches, and the draws of each, depend on the seed and on the number of the batch alone. So a resumed training
    draws what an unbroken one does, and two processes what one does.

    Attributes:
        batches: numbers of those batches, among all batches of the training.
        always: no batch keeps its given answers.
    """

    def __init__(self, how: OwnAnswers, batches: int, seed: int) -> None:
        """Draw which of so many batches get answers of the student's own, each with probability `how.fraction`."""
        self.how, self.seed, self.always = how, seed, how.fraction == 1
        rng = random.Random(f"own answers {seed}")  # noqa: S311 - a choice, not a secret
        self.batches = frozenset(number for number in range(batches) if rng.random() < how.fraction)

    def write(self, model: PreTrainedModel, examples: Sequence[Example], number: int) -> list[Example]:
        """The prompts of batch `number` with what the model answers now. It is run as a whole, in evaluation mode."""
        training = model.training
        model.eval()
        answers = sample(
            model, [example.prompt for example in examples], self.how, np.random.default_rng([self.seed, number])
        )
        model.train(training)
        return [Example(example.prompt, answer) for example, answer in zip(examples, answers, strict=True)]


def sample(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], how: OwnAnswers, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Answers to all prompts at once, sampled from `model`.

    Each goes up to an end token, which is its last, `how.max_tokens` or the end of the context, and has one token at
    the least. The engines' loop (`engines/decoding.py`) chooses row by row, in numpy and reproducibly in any batch;
    here a batch is always the same, and its tokens are drawn together where the model is.
    """
    context = model.config.get_text_config().max_position_embeddings
    room = [min(how.max_tokens, context - len(prompt)) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    rows, unfinished = list(range(len(prompts))), set(range(len(prompts)))
    batch = CachedBatch(model, prompts)
    while True:
        # One chance for every prompt, finished or not: no row's draws depend on when others end.
        ids = draw(batch.logits, rng.random(len(prompts))[rows], how.temperature)
        for row, id in zip(rows, ids, strict=True):
            if row in unfinished:
                answers[row].append(id)
                if id in how.end_ids or len(answers[row]) >= room[row]:
                    unfinished.remove(row)
        if not unfinished:
            return [tuple(answer) for answer in answers]
        if len(unfinished) <= _WORTH_SHRINKING * len(rows):
            places = [place for place, row in enumerate(rows) if row in unfinished]
            batch.keep(places)
            rows, ids = [rows[place] for place in places], [ids[place] for place in places]
        batch.advance(ids)


def draw(logits: torch.Tensor, chances: npt.NDArray[np.float64], temperature: float) -> list[int]:
    """One token for each row, distributed as softmax(logits / temperature).

    Inverse transform sampling: the first token whose cumulative probability is above the row's chance.

    Args:
        logits: [rows, vocabulary].
        chances: uniform in [0, 1), [rows].
    """
    # The largest logit is taken off before the division, so that no temperature is too small.
    above = logits.double() - logits.amax(-1, keepdim=True)
    cumulative = (above / temperature).exp().cumsum(-1)
    wanted = torch.from_numpy(chances).to(logits.device)[:, None] * cumulative[:, -1:]
    ids: list[int] = torch.searchsorted(cumulative, wanted, right=True).clamp(max=logits.shape[-1] - 1)[:, 0].tolist()
    return ids
