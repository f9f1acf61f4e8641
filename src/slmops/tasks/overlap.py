"""How much of a reference text an answer has: ROUGE, BLEU and chrF, as columns that add up over rows.

Sources: Lin (2004), "ROUGE"; Papineni et al. (2002), "BLEU"; Popović (2015), "chrF". The counts are those of
rouge-score and sacrebleu, with their defaults: ROUGE without stemming, BLEU with the 13a tokens, chrF2 over six
characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from slmops.tasks.figures import Array, Figure

BLEU_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2
ROUGE = {"rouge_l": "rougeL", "rouge_1": "rouge1", "rouge_2": "rouge2"}
BLEU_COLUMNS = tuple(
    ["bleu:answer", "bleu:reference"]
    + [f"bleu:{part}{order}" for part in ("hits", "total") for order in range(1, BLEU_ORDER + 1)]
)
CHRF_COLUMNS = tuple(
    f"chrf:{part}{order}" for order in range(1, CHRF_ORDER + 1) for part in ("answer", "reference", "hits")
)


def overlap(references: Sequence[str], answer: str) -> Mapping[str, float]:
    """One row's columns. ROUGE is the F-score against the reference that suits best; the rest are n-gram counts."""
    rouge, bleu, chrf = _scorers()
    scores = rouge.score_multi(references, answer)
    apart = [[reference] for reference in references]
    # sacrebleu keeps the counts of a sentence to itself; its own bootstrap takes them by the same door.
    counts = [scorer._extract_corpus_statistics([answer], apart)[0] for scorer in (bleu, chrf)]
    return {
        **{name: scores[theirs].fmeasure for name, theirs in ROUGE.items()},
        **dict(zip(BLEU_COLUMNS, map(float, counts[0]), strict=True)),
        **dict(zip(CHRF_COLUMNS, map(float, counts[1]), strict=True)),
    }


def overlap_figures() -> tuple[Figure, ...]:
    """`rouge_l`, `chrf`, `rouge_1`, `rouge_2` and `bleu`, all in 0..1; the first two decide between models."""
    return (
        Figure("rouge_l", ("rouge_l",), compared=True),
        Figure("chrf", CHRF_COLUMNS, chrf, compared=True),
        Figure("rouge_1", ("rouge_1",)),
        Figure("rouge_2", ("rouge_2",)),
        Figure("bleu", BLEU_COLUMNS, bleu),
    )


def bleu(means: Array) -> Array:
    """Corpus BLEU of `BLEU_COLUMNS`, in 0..1, without smoothing: 0 where no 4-gram of the corpus matches."""
    answer, wanted = means[:, 0], means[:, 1]
    hits, total = np.split(means[:, 2:], 2, axis=1)
    shares = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    with np.errstate(divide="ignore"):
        precision = np.exp(np.log(shares).mean(axis=1))
    lengths = np.divide(wanted, answer, out=np.full(len(means), np.inf), where=answer > 0)
    brevity = np.exp(np.minimum(0.0, 1 - lengths))
    return np.asarray(brevity * precision)


def chrf(means: Array) -> Array:
    """chrF of `CHRF_COLUMNS`, in 0..1: F-beta of precision and recall, each averaged over the orders that occur."""
    answer, wanted, hits = (means[:, part::3] for part in range(3))
    both = (answer > 0) & (wanted > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    sides = [
        np.divide(hits, side, out=np.zeros_like(hits), where=both).sum(axis=1) / orders for side in (answer, wanted)
    ]
    below = CHRF_BETA**2 * sides[0] + sides[1]
    above = (1 + CHRF_BETA**2) * sides[0] * sides[1]
    return np.asarray(np.divide(above, below, out=np.zeros(len(means)), where=below > 0))


@cache
def _scorers() -> tuple[Any, Any, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return (
        RougeScorer(list(ROUGE.values())),
        BLEU(max_ngram_order=BLEU_ORDER, force=True),
        CHRF(char_order=CHRF_ORDER, beta=CHRF_BETA),
    )
