"""What a check of parity says of a bundle: one verdict per question, in the form of all gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slmops.evaluate.parity import Cut, Measured, Parity
from slmops.evaluate.parity_weights import Weights
from slmops.recipe.evaluate import ParityBounds, ParitySettings

MOST_TURNED = 0.02
"""Of a pair of features at a position, in radians. Exports are exact but for the rounding of large angles."""

_SAME = {
    "parity_prompts": "the student's own tokens",
    "parity_end_tokens": "the student's own",
    "parity_context": "the student's own at least",
}
"""What surrounds a model, and what is wanted of it."""


def parity_verdicts(parity: Parity, settings: ParitySettings) -> list[dict[str, Any]]:
    """As of `judge_gates`; every verdict is a pass or a fail.

    Where what surrounds the models differs, there are no figures to judge.
    """
    faults = {fault.what: fault for fault in parity.faults}
    verdicts = []
    for figure, wanted in {**_SAME, **dict.fromkeys(faults.keys() - _SAME, "the student's own")}.items():
        fault = faults.get(figure)
        said = fault.message if fault else f"the same on all {parity.rows} rows"
        if parity.cut and figure == "parity_prompts" and not fault:
            said = _respelled(parity.cut, parity.rows)
        verdicts.append(_verdict(figure, None, wanted, fault is None, said))
    if parity.weights:
        verdicts += _weights(parity.weights)
    if parity.measured:
        verdicts += [
            *_figures(parity.measured, settings.bounds(parity.shipped)),
            _drop(parity.measured, settings.max_drop),
        ]
    return verdicts


def _respelled(cut: Cut, rows: int) -> str:
    return (
        f"the same text on all {rows} rows; {cut.prompts} in smaller pieces, as are {cut.answers} answers, for "
        f"{cut.tokens:,} of {cut.tokens_before:,} tokens are left; the others have {cut.lost:.2g} of the probability"
    )


def _weights(found: Weights) -> Iterator[dict[str, Any]]:
    others = len(found.missing) + found.misplaced
    said = f"{found.misplaced} rows and columns are not in their place in {found.matrices} matrices"
    said += f"; {'the first' if found.misplaced else 'the least like its own'} is {found.where} ({found.cosine:.3f})"
    if found.missing:
        said = f"only one of both has {', '.join(found.missing)}"
    wanted = "every row and column most like the student's own"
    yield _verdict("parity_weights", others, wanted, not others, said, max=0)
    sound, wanted = found.turned <= MOST_TURNED, f"turned by at most {MOST_TURNED:g}"
    said = f"{found.turned:.2g} {_held(sound)} at most {MOST_TURNED:g} from where the student turns them"
    yield _verdict("parity_positions", found.turned, wanted, sound, said, max=MOST_TURNED)


def _figures(measured: Measured, bounds: ParityBounds) -> Iterator[dict[str, Any]]:
    for figure, kl, most in (
        ("parity_first_token_kl", measured.first_token_kl_nats, bounds.max_first_token_kl),
        ("parity_token_kl", measured.token_kl_nats, bounds.max_token_kl),
    ):
        said = f"{kl:.3g} nats {_held(kl <= most)} at most {most:g}"
        yield _verdict(figure, kl, f"at most {most:g} nats", kl <= most, said, max=most)
    agreed, least = measured.agreement, bounds.min_agreement
    said = f"{agreed:.3f} ({measured.same_answers:.3f} of whole answers) {_held(agreed >= least)} at least {least:g}"
    yield _verdict("parity_agreement", agreed, f"at least {least:g}", agreed >= least, said, min=least)


def _drop(measured: Measured, most: float) -> dict[str, Any]:
    """So few rows cannot show that nothing is lost, so the gate fails only where they show that too much is."""
    low, high = (end * 100 for end in measured.drop_interval)
    said = (
        f"{measured.figure} {measured.drop * 100:.1f} points below the student's (95 % interval {low:.1f} to "
        f"{high:.1f}) {'may be' if low <= most * 100 else 'is not'} at most {most * 100:g}"
    )
    wanted = f"not shown to be above {most * 100:g} points"
    return _verdict("parity_drop", measured.drop * 100, wanted, low <= most * 100, said, max=most * 100)


def _held(passes: bool) -> str:
    return "is" if passes else "is not"


def _verdict(
    figure: str,
    value: float | None,
    wanted: str,
    passes: bool,
    said: str,
    *,
    min: float | None = None,
    max: float | None = None,
) -> dict[str, Any]:
    state = "pass" if passes else "fail"
    bounds = {"min": min, "max": max}
    return {"figure": figure, "value": value, "wanted": wanted, "state": state, "message": f"{figure}: {said}"} | bounds
