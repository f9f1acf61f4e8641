"""Do latency and quality hold up to the end of the context?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmops.bundle import Bundle
from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Answer, Crashed
from slmops.evaluate.checklist.subject import Subject
from slmops.evaluate.checklist.texts import OUT_OF_DOMAIN
from slmops.tasks import ParseFailure

LATENCY = "latency over lengths"
QUALITY = "quality over lengths"
MAX_FIRST = 2.0
"""Exponent of the time to the first token in the prompt's tokens. Attention is quadratic; more is not the model's."""

MAX_NEXT = 1.0
"""Exponent of the time per further token. Reading the cache is linear; more means that it is not used."""

MIN_FORMED = 0.8
"""Share of long requests whose answer has the task's form."""

_LENGTHS = 6
_TEXTS = 3
"""Asked per length."""

_LONG = 1_000
"""Tokens above which one text is enough: a small model on a small machine takes a minute for some thousands."""


@dataclass(frozen=True)
class Measured:
    """Answers to requests of about one length.

    Attributes:
        prompt_tokens: of the longest.
        first_s: shortest time to the first token.
        next_s: shortest time per further token; None where no answer has two.
        formed, asked: answers of the task's form, and requests.
    """

    prompt_tokens: int
    first_s: float
    next_s: float | None
    formed: int
    asked: int


def over_lengths(subject: Subject, context_tokens: int) -> list[Line]:
    """Requests of six lengths, evenly spaced on a log scale from the shortest to the context's end.

    Each is an in-domain query (an everyday sentence where none is given) behind other sentences that fill it up.
    """
    texts = subject.texts[:_TEXTS]
    subject.served.greedy(texts[:1])
    targets = _targets(subject.bundle, texts, context_tokens)
    asked = [(tokens, texts[:1] if tokens > _LONG else texts) for tokens in targets]
    measured: list[Measured] = []
    with subject.progress.task("input lengths", sum(len(texts) for _, texts in asked), "requests") as bar:
        for tokens, chosen in asked:
            one = _measure(subject, [padded(subject.bundle, text, tokens) for text in chosen])
            if isinstance(one, Crashed):
                return [Line(name, "fail", f"crashed at {tokens} tokens", "", one.how) for name in (LATENCY, QUALITY)]
            measured.append(one)
            bar.advance(len(chosen))
    return [_latency(measured), _quality(measured)]


def _targets(bundle: Bundle, texts: Sequence[str], context_tokens: int) -> list[int]:
    """Prompt lengths, from that of the longest text to the last one that leaves room for an answer."""
    import numpy as np

    shortest = max(len(bundle.tokenizer.prompt(bundle.task.render(text))) for text in texts)
    longest = max(shortest, context_tokens - bundle.sampling.max_tokens)
    return sorted({int(tokens) for tokens in np.geomspace(shortest, longest, _LENGTHS)})


def padded(bundle: Bundle, text: str, tokens: int) -> str:
    """`text` behind as many other words as bring its prompt to at most `tokens` tokens, or by itself."""
    words = " ".join(OUT_OF_DOMAIN).split()
    low, high = 0, tokens  # a word has at least one token

    def filled(count: int) -> str:
        filler = [words[i % len(words)] for i in range(count)]
        return " ".join([*filler, text])

    while low < high:
        middle = (low + high + 1) // 2
        fits = len(bundle.tokenizer.prompt(bundle.task.render(filled(middle)))) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return filled(low)


def _measure(subject: Subject, texts: Sequence[str]) -> Measured | Crashed:
    """Each text by itself; a time is the shortest of them, since whatever else the machine does only adds to it."""
    answers: list[Answer] = []
    formed = 0
    for text in texts:
        outcome = subject.served.greedy([text])
        if isinstance(outcome, Crashed):
            return outcome
        if isinstance(outcome, list):
            answers += outcome
            formed += not isinstance(subject.read("long", outcome[0].text), ParseFailure)
    if not answers:
        return Crashed("a request that fits into the context was refused")
    following = [(a.total_s - a.first_s) / (a.tokens - 1) for a in answers if a.tokens > 1]
    return Measured(
        max(answer.prompt_tokens for answer in answers),
        min(answer.first_s for answer in answers),
        min(following, default=None),
        formed,
        len(texts),
    )


def _latency(measured: Sequence[Measured]) -> Line:
    first = exponent([(one.prompt_tokens, one.first_s) for one in measured])
    following = exponent([(one.prompt_tokens, one.next_s) for one in measured if one.next_s is not None])
    bound = f"at most n^{MAX_FIRST:g} and n^{MAX_NEXT:g}"
    if first is None:
        return Line(LATENCY, "skipped", bound=bound, detail="the context has no room for prompts of different lengths")
    longest = measured[-1]
    figure = f"first token n^{first:.2f}" + ("" if following is None else f", next n^{following:.2f}")
    each = [f"{one.prompt_tokens}: {one.first_s * 1e3:,.0f}" for one in measured]
    return Line(
        LATENCY,
        judged(first <= MAX_FIRST and (following or 0.0) <= MAX_NEXT),
        figure,
        bound,
        f"ms to the first token at n tokens: {', '.join(each)}",
        {
            "first_token_exponent": first,
            "next_token_exponent": following,
            "longest_prompt_tokens": longest.prompt_tokens,
            "longest_first_token_ms": longest.first_s * 1e3,
        },
    )


def _quality(measured: Sequence[Measured]) -> Line:
    formed, asked = sum(one.formed for one in measured), sum(one.asked for one in measured)
    whole = [one.prompt_tokens for one in measured if one.formed == one.asked]
    bad = [f"{one.asked - one.formed} of {one.asked} at {one.prompt_tokens} tokens" for one in measured]
    bad = [text for text, one in zip(bad, measured, strict=True) if one.formed < one.asked]
    return Line(
        QUALITY,
        judged(formed / asked >= MIN_FORMED),
        f"{formed / asked:.1%} of {asked} valid",
        f"at least {MIN_FORMED:.0%}",
        f"no valid answer: {', '.join(bad)}" if bad else f"up to {measured[-1].prompt_tokens} prompt tokens",
        {"asked": asked, "valid": formed / asked, "longest_all_valid_tokens": max(whole, default=0)},
    )


def exponent(points: Sequence[tuple[int, float]]) -> float | None:
    """b of time = a·tokens^b by least squares on logarithms; None where there is but one length."""
    import numpy as np

    if len({tokens for tokens, _ in points}) < 2:
        return None
    tokens, seconds = np.log(np.array(points, dtype=np.float64)).T
    return float(np.polyfit(tokens, seconds, 1)[0])
