"""How sure a teacher was of each part of what it wrote."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from slmops.models.tokenizer import Tokenizer
from slmops.tasks import strict_json
from slmops.tasks.marking import LABEL
from slmops.teach.answers import Answer


def member_certainties(answer: Answer, tokenizer: Tokenizer) -> Mapping[str, float]:
    """The probability of each member's key and value, given what was written before.

    An answer that is a label has one member, `marking.LABEL`.

    Args:
        tokenizer: of the teacher.

    Returns:
        Nothing where no probabilities were stored.
    """
    if not answer.top_log_probs.shape[1]:
        return {}
    ends, log_probs = _ends(answer, tokenizer), _log_probs(answer)
    if not answer.text.lstrip().startswith("{"):
        return {LABEL: float(np.exp(log_probs.sum()))}
    starts = np.concatenate([[0], ends[:-1]])
    return {
        name: float(np.exp(log_probs[(ends > start) & (starts < end)].sum()))
        for name, (start, end) in strict_json.members(answer.text).items()
    }


def _ends(answer: Answer, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Behind which character of the text each token ends; the first tokens of a character end before it."""
    stream = tokenizer.stream()
    return np.cumsum([len(stream.feed(int(token))) for token in answer.tokens])


def _log_probs(answer: Answer) -> npt.NDArray[np.float32]:
    """Of the written tokens. One that is not among the most likely ones counts as the least likely of these."""
    written = answer.top_ids == answer.tokens[:, None]
    known = np.where(written, answer.top_log_probs, -np.inf).max(axis=1)
    found: npt.NDArray[np.float32] = np.where(written.any(axis=1), known, answer.top_log_probs.min(axis=1))
    return found
