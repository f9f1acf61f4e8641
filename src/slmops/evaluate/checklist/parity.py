"""Is it still the model that it was made from?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput
from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.subject import Subject
from slmops.models.spelling import Spelling, spelling
from slmops.models.tokenizer import Tokenizer

NAME = "parity with the source"
MIN_AGREEMENT = 0.9
"""Share of texts to which both write the same answer."""

MAX_KL_NATS = 0.1
"""Mean divergence of the first token's distribution from the source's."""

_TEXTS = 64
_SURE = 1e-7
"""Nats below certainty that a sure answer is taken to be, so that there is a probability of any other."""

_TOGETHER = 8
_LEAST = 1e-30
"""A probability is taken to be no smaller, so that its logarithm is finite."""

Prompts = list[list[int]]
LogProbabilities = npt.NDArray[np.float64]


def parity(subject: Subject, model: Path | None, threads: int) -> Line:
    """Against the model in `model`, through PyTorch: first-token KL(source, bundle) and agreement of greedy answers.

    Raises:
        BadInput: `model` is no model, or not the one that the bundle was made from.
    """
    if model is None:
        return Line(NAME, "skipped", detail="no source model: give --model")
    texts = subject.texts[:_TEXTS]
    bundle = subject.bundle
    prompts = [bundle.tokenizer.prompt(bundle.task.render(text)) for text in texts]
    theirs = Tokenizer.load(model)
    wanted, spelled = [theirs.prompt(bundle.task.render(text)) for text in texts], spelling(theirs, bundle.tokenizer)
    if _others(prompts, wanted, spelled):
        raise BadInput(f"{model} reads texts as other tokens than the bundle", hint="give the model it was made from")
    engines = [load_engine("transformers", model, threads=threads), bundle.engine]
    divergence: list[float] = []
    written: list[list[list[int]]] = [[], []]
    with subject.progress.task("parity", len(texts), "requests") as bar:
        for begin in range(0, len(texts), _TOGETHER):
            asked = [wanted[begin : begin + _TOGETHER], prompts[begin : begin + _TOGETHER]]
            source, shipped = (_first(engine, part) for engine, part in zip(engines, asked, strict=True))
            source = _as_spelled(source, spelled) if spelled else source
            if source.shape != shipped.shape:
                raise BadInput(f"{model} has a vocabulary of {source.shape[1]}, the bundle one of {shipped.shape[1]}")
            divergence += kl_nats(source, shipped)
            for engine, part, answers in zip(engines, asked, written, strict=True):
                answers += _answers(engine, part, bundle.sampling.max_tokens)
            bar.advance(len(asked[0]))
    said = [theirs.decode(ids) for ids in written[0]], [bundle.tokenizer.decode(ids) for ids in written[1]]
    same = [a == b for a, b in zip(*(said if spelled else written), strict=True)]
    agreement, kl = sum(same) / len(same), float(np.mean(divergence))
    worst = sorted(range(len(texts)), key=lambda i: (same[i], -divergence[i]))[:3]
    examples = [
        {
            "input": texts[i],
            "kl_nats": divergence[i],
            "source": said[0][i],
            "bundle": said[1][i],
        }
        for i in worst
    ]
    apart = next((f"{e['source']!r} became {e['bundle']!r}" for e in examples if e["source"] != e["bundle"]), "")
    return Line(
        NAME,
        judged(agreement >= MIN_AGREEMENT and kl <= MAX_KL_NATS),
        f"{agreement:.1%} same, KL {kl:.4f} nats",
        f"at least {MIN_AGREEMENT:.0%}, at most {MAX_KL_NATS:g} nats",
        f"{len(texts)} texts{_respelled(wanted, spelled)}" + (f"; {apart}" if apart else ""),
        {"texts": len(texts), "agreement": agreement, "first_token_kl_nats": kl, "worst": examples},
    )


def _others(prompts: Prompts, wanted: Prompts, spelled: Spelling | None) -> bool:
    """Whether the source reads a text as other tokens, though the bundle has all of them."""
    if spelled is None:
        return prompts != wanted
    return any(spelled.of(b) != a for a, b in zip(prompts, wanted, strict=True) if not spelled.cuts(b))


def _respelled(wanted: Prompts, spelled: Spelling | None) -> str:
    count = sum(map(spelled.cuts, wanted)) if spelled else 0
    return f", {count} of them in smaller pieces" if count else ""


def _as_spelled(source: LogProbabilities, spelled: Spelling) -> LogProbabilities:
    """The source's probabilities in a cut vocabulary: what a token has, the piece has that it begins with."""
    found = np.zeros((len(source), len(spelled.kept)))
    begins = {id: first for id in range(source.shape[1]) if (first := spelled.first(id)) is not None}
    known, firsts = list(begins), list(begins.values())
    for row, log_probs in zip(found, source, strict=True):
        np.add.at(row, firsts, np.exp(log_probs[known]))
    return np.asarray(np.log(np.maximum(found, _LEAST)))


def kl_nats(source: LogProbabilities, shipped: LogProbabilities) -> list[float]:
    """Kullback–Leibler divergence of each row of `shipped` from that of `source`, log-probabilities [rows, tokens]."""
    # Never below 0 but by rounding.
    return [max(0.0, float(value)) for value in (np.exp(source) * (source - shipped)).sum(axis=1)]


def _first(engine: Engine, prompts: Sequence[Sequence[int]]) -> LogProbabilities:
    """Log-probabilities of all first tokens, [prompts, vocabulary]; of a model that labels [prompts, 2].

    Its answer is one outcome and any other the second: what that divergence leaves out, the agreement of answers tells.
    """
    found: dict[int, LogProbabilities] = {}
    # More than any vocabulary: an engine gives as many as it has.
    for token in engine.generate(prompts, Sampling(max_tokens=1), top_logits=10_000_000):
        if token.top is not None:
            ids, scores = token.top
            if len(ids) == 1:
                others = np.log1p(-np.exp(np.minimum(scores.astype(float), -_SURE)))
                found[token.request] = np.array([float(scores[0]), float(others[0])])
                continue
            found[token.request] = row = np.empty(len(ids))
            row[ids] = scores
    return np.array([found[i] for i in range(len(prompts))])


def _answers(engine: Engine, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    for token in engine.generate(prompts, Sampling(max_tokens=max_tokens)):
        written[token.request].append(token.id)
    return written
