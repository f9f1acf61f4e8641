"""What the compression benchmark found, as figures and as a table; see `compress.py` for what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from statistics import median
from typing import Any

import numpy as np
from _compress_sides import CHOSEN, EXACT, OURS, SMALL, THEIRS, Side

from slmops.evaluate.significance import Difference, paired_bootstrap

FP16_BYTES = 2
SLACK = 1.01
"""As large, or as good: within one hundredth."""

Found = Mapping[str, Any]
"""Of one side: `size_bytes`, `log_probs` of each text, `right` for each row, and `rounds` of its speed."""

Interval = tuple[float, float]


def prefix(subject: str) -> str:
    """What its figures' names begin with: those of the tickets are the benchmark's own."""
    return "" if subject == "tickets" else f"{subject}_"


def perplexity(side: Found) -> float:
    """Of all tokens but each text's first."""
    return exp(-sum(map(sum, side["log_probs"])) / sum(map(len, side["log_probs"])))


def answer_perplexity(side: Found, answers: Sequence[int]) -> float:
    """Of the answers' tokens alone, given how many each text ends with."""
    total = sum(sum(row[-count:]) for row, count in zip(side["log_probs"], answers, strict=True))
    return exp(-total / sum(answers))


def perplexity_ratio(theirs: Found, ours: Found) -> tuple[float, Interval]:
    """Theirs over ours, and a paired bootstrap of it over texts."""
    columns = [np.array([[sum(row), len(row)] for row in side["log_probs"]]) for side in (ours, theirs)]
    tested = paired_bootstrap(*columns, lambda means: means[:, 0] / means[:, 1], seed=0)
    return exp(tested.value), (exp(tested.interval[0]), exp(tested.interval[1]))


def points(ours: Found, theirs: Found) -> Difference:
    """Exact match of ours less that of theirs."""
    return paired_bootstrap(ours["right"], theirs["right"], seed=0)


def speed(side: Found, name: str) -> float:
    """Median over the rounds."""
    return median(one[name] for one in side["rounds"])


def speed_ratio(ours: Found, theirs: Found, name: str) -> tuple[float, Interval]:
    """Ours over theirs: the median of each round's ratio, and its ends, for both stand side by side in a round."""
    ratios = [mine[name] / other[name] for mine, other in zip(ours["rounds"], theirs["rounds"], strict=True)]
    return median(ratios), (min(ratios), max(ratios))


def lead(ours: Found, theirs: Found) -> float:
    """Quality where ours is no larger, or speed where it is no worse, whichever is more; 0 where neither is so."""
    quality, _ = perplexity_ratio(theirs, ours)
    faster, _ = speed_ratio(ours, theirs, "alone_tokens_per_s")
    no_larger = ours["size_bytes"] <= theirs["size_bytes"] * SLACK
    return max(quality if no_larger else 0.0, faster if quality >= 1 / SLACK else 0.0)


def figures(found: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Interval]]:
    """All that was found, as one number per name, and ends of those that have some."""
    named: dict[str, float] = {"threads": found["threads"], "read_gb_per_s": found["bytes_per_s"] / 1e9}
    spread: dict[str, Interval] = {}
    for subject, one in found["subjects"].items():
        values, ends = of_subject(one, found["bytes_per_s"])
        named |= {prefix(subject) + name: value for name, value in values.items()}
        spread |= {prefix(subject) + name: end for name, end in ends.items()}
    return named, spread


def of_subject(one: Mapping[str, Any], bytes_per_s: float) -> tuple[dict[str, float], dict[str, Interval]]:
    """The small side against fp16, the chosen one against the exact one and each rival, then every side by itself."""
    sides, chosen, small = one["sides"], one["sides"][CHOSEN], one["sides"][SMALL]
    values: dict[str, float] = {"size_saving_vs_fp16": 1 - small["size_bytes"] / (FP16_BYTES * one["parameters"])}
    spread: dict[str, Interval] = {}
    for name, side in (("accuracy_points_drop", small), (f"{CHOSEN}_points_drop", chosen)):
        drop = points(sides[EXACT], side)
        values[name], spread[name] = drop.value * 100, (drop.interval[0] * 100, drop.interval[1] * 100)
    values["perplexity_ratio_vs_fp32"], spread["perplexity_ratio_vs_fp32"] = perplexity_ratio(sides[EXACT], chosen)
    for rival in (side.name for side in THEIRS if side.name in sides):
        against, ends = versus(sides, rival)
        values |= against
        spread |= ends
    for name, side in sides.items():
        alone = by_itself(side, one, bytes_per_s)
        values |= {f"{figure}_{name}": value for figure, value in alone.items()}
    values |= {name: one[name] for name in ("parameters", "rows", "tokens")}
    return values, spread


def versus(sides: Mapping[str, Found], rival: str) -> tuple[dict[str, float], dict[str, Interval]]:
    """The chosen side against one rival; `lead_of_any` is that of whichever of ours leads most."""
    ours, theirs = sides[CHOSEN], sides[rival]
    more = points(ours, theirs)
    ranged = {
        "perplexity_ratio_vs": perplexity_ratio(theirs, ours),
        "speed_ratio_vs": speed_ratio(ours, theirs, "alone_tokens_per_s"),
        "speed_at_8_ratio_vs": speed_ratio(ours, theirs, "together_tokens_per_s"),
        "exact_match_points_over": (more.value * 100, (more.interval[0] * 100, more.interval[1] * 100)),
    }
    values = {f"{name}_{rival}": value for name, (value, _) in ranged.items()}
    values[f"size_ratio_vs_{rival}"] = theirs["size_bytes"] / ours["size_bytes"]
    values[f"memory_ratio_vs_{rival}"] = speed(theirs, "peak_mb") / speed(ours, "peak_mb")
    values[f"lead_over_{rival}"] = lead(ours, theirs)
    values[f"lead_of_any_over_{rival}"] = max(lead(sides[one.name], theirs) for one in OURS if one.name in sides)
    return values, {f"{name}_{rival}": ends for name, (_, ends) in ranged.items()}


def by_itself(side: Found, one: Mapping[str, Any], bytes_per_s: float) -> dict[str, float]:
    """One side's own figures.

    `floor_share` is the share of the time for a token of one stream that reading all weights once would take.
    """
    alone = speed(side, "alone_tokens_per_s")
    return {
        "perplexity": perplexity(side),
        "answer_perplexity": answer_perplexity(side, one["answer_tokens"]),
        "exact_match": float(np.mean(side["right"])),
        "size_mb": side["size_bytes"] / 1e6,
        "tokens_per_s": alone,
        "tokens_per_s_at_8": speed(side, "together_tokens_per_s"),
        "load_s": speed(side, "load_s"),
        "peak_mb": speed(side, "peak_mb"),
        "floor_share": alone * side["size_bytes"] / bytes_per_s,
    }


COLUMNS = {
    "perplexity": ("perplexity", "{:.3f}"),
    "answer_perplexity": ("of answers", "{:.3f}"),
    "exact_match": ("exact match", "{:.3f}"),
    "size_mb": ("MB", "{:.1f}"),
    "tokens_per_s": ("tokens/s", "{:.0f}"),
    "tokens_per_s_at_8": ("at 8", "{:.0f}"),
    "floor_share": ("of floor", "{:.2f}"),
    "load_s": ("load s", "{:.2f}"),
    "peak_mb": ("peak MB", "{:.0f}"),
}


def table(found: Mapping[str, Any]) -> str:
    """A table of each subject in Markdown, with the size that its weights would have in fp16."""
    return "\n\n".join(_table(name, one, found["bytes_per_s"]) for name, one in found["subjects"].items())


def _table(subject: str, one: Mapping[str, Any], bytes_per_s: float) -> str:
    heads = ["", *(head for head, _ in COLUMNS.values())]
    rows = [_row(side, one, bytes_per_s) for side in (*OURS, *THEIRS) if side.name in one["sides"]]
    half = f"{one['parameters'] * FP16_BYTES / 1e6:.1f}"
    rows.insert(1, ["fp16 (size alone)", *(half if name == "size_mb" else "" for name in COLUMNS)])
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join([f"{subject}: {one['rows']} rows, {one['tokens']} tokens", "", *lines])


def _row(side: Side, one: Mapping[str, Any], bytes_per_s: float) -> list[str]:
    values = by_itself(one["sides"][side.name], one, bytes_per_s)
    return [side.title, *(form.format(values[name]) for name, (_, form) in COLUMNS.items())]
