"""What every benchmark gives: a table for people and, as its last line, one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from slmops.pipeline.environment import cpu_model

RESULTS = Path(__file__).parent / "results"
_ROUNDING = 1e-12
_LESS_IS_BETTER = ("_ms", "_mb", "_s", "_points_drop", "_lost", "_twice", "_failed", "_stuck", "_left", "overspend_usd")


def machine() -> str:
    """Cores that this process may use, and what they are: `2 x AMD EPYC`."""
    return f"{len(os.sched_getaffinity(0))} x {cpu_model()}"


def machine_with_gpu() -> str:
    """The same, and its GPU: `16 x Intel Xeon, NVIDIA H100`."""
    import torch

    return f"{machine()}, {torch.cuda.get_device_name()}"


def missed(figures: Mapping[str, float], goals: Mapping[str, float]) -> list[str]:
    """The goals that the figures do not meet; a goal without a figure is not met."""
    return [name for name, goal in goals.items() if name not in figures or not _meets(name, figures[name], goal)]


def _meets(name: str, figure: float, goal: float) -> bool:
    # 105 of 2,100 are five hundredths, whatever the last bit says.
    slack = _ROUNDING * max(1.0, abs(goal))
    return figure <= goal + slack if name.endswith(_LESS_IS_BETTER) else figure >= goal - slack


def publish(
    name: str,
    figures: Mapping[str, float],
    *,
    goals: Mapping[str, float],
    spread: Mapping[str, Sequence[float]] | None = None,
    keep: bool = True,
    on: str | None = None,
) -> None:
    """Print the figures and keep them in `benchmarks/results/NAME.json`.

    Args:
        figures: plain numbers. More is better, unless a name ends in `_ms`, `_mb`, `_s`, `_points_drop`, `_lost`,
            `_twice`, `_failed`, `_stuck`, `_left` or `overspend_usd`.
        goals: the worst value of a figure that is good enough.
        spread: lower and upper end of a figure.
        keep: false for a run too small to stand beside others.
        on: what the figures were measured on, where that is not this machine's processor alone.
    """
    spread, on = spread or {}, on or machine()
    result = {
        "name": name,
        "machine": on,
        "figures": dict(figures),
        "spread": {figure: list(ends) for figure, ends in spread.items()},
        "goals": dict(goals),
        "missed": missed(figures, goals),
    }
    print(f"{name} on {on}\n")
    for figure, value in figures.items():
        ends = "{:>9,.3f} to {:,.3f}".format(*spread[figure]) if figure in spread else ""
        print(f"{figure:<28}{value:>10,.3f}{ends:<22}{_verdict(figure, value, goals)}".rstrip())
    print(f"\nmissed: {', '.join(result['missed']) or 'none'}")
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def put_between(document: str, name: str, block: str) -> str:
    """`document` with `block` between its marks `<!-- NAME:begin -->` and `<!-- NAME:end -->`, each on its own line."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, rest = document.split(begin)
    return f"{before}{begin}{block}{end}{rest.split(end, 1)[1]}"


def _verdict(figure: str, value: float, goals: Mapping[str, float]) -> str:
    if figure not in goals:
        return ""
    bound = "at most" if figure.endswith(_LESS_IS_BETTER) else "at least"
    return f"  goal {bound} {goals[figure]:g}: {'met' if _meets(figure, value, goals[figure]) else 'MISSED'}"
