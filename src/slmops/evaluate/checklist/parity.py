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
    if prompts != [theirs.prompt(bundle.task.render(text)) for text in texts]:
        raise BadInput(f"{model} reads texts as other tokens than the bundle", hint="give the model it was made from")
    engines = [load_engine("transformers", model, threads=threads), bundle.engine]
    divergence: list[float] = []
    written: list[list[list[int]]] = [[], []]
    with subject.progress.task("parity", len(texts), "requests") as bar:
        for begin in range(0, len(texts), _TOGETHER):
            part = prompts[begin : begin + _TOGETHER]
            source, shipped = (_first(engine, part) for engine in engines)
            if source.shape != shipped.shape:
                raise BadInput(f"{model} has a vocabulary of {source.shape[1]}, the bundle one of {shipped.shape[1]}")
            divergence += kl_nats(source, shipped)
            for engine, answers in zip(engines, written, strict=True):
                answers += _answers(engine, part, bundle.sampling.max_tokens)
            bar.advance(len(part))
    same = [a == b for a, b in zip(*written, strict=True)]
    agreement, kl = sum(same) / len(same), float(np.mean(divergence))
    worst = sorted(range(len(texts)), key=lambda i: (same[i], -divergence[i]))[:3]
    examples = [
        {
            "input": texts[i],
            "kl_nats": divergence[i],
            "source": theirs.decode(written[0][i]),
            "bundle": theirs.decode(written[1][i]),
        }
        for i in worst
    ]
    apart = next((f"{e['source']!r} became {e['bundle']!r}" for e in examples if e["source"] != e["bundle"]), "")
    return Line(
        NAME,
        judged(agreement >= MIN_AGREEMENT and kl <= MAX_KL_NATS),
        f"{agreement:.1%} same, KL {kl:.4f} nats",
        f"at least {MIN_AGREEMENT:.0%}, at most {MAX_KL_NATS:g} nats",
        f"{len(texts)} texts" + (f"; {apart}" if apart else ""),
        {"texts": len(texts), "agreement": agreement, "first_token_kl_nats": kl, "worst": examples},
    )


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
