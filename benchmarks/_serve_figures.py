"""What the serving benchmark found, as figures and as tables; see `serve.py` for what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from _serve_sides import EXACT, OURS, THEIRS, Side

Found = Mapping[str, Any]
"""Of one side: `size_bytes`, and `rounds`, each with `loads`, `load_s` and `peak_mb`."""

Interval = tuple[float, float]


def rate(load: Found) -> float:
    """Tokens written a second."""
    written: float = load["tokens"] / load["seconds"]
    return written


def rates(side: Found, load: str) -> list[float]:
    """Of each round."""
    return [rate(one["loads"][load]) for one in side["rounds"]]


def of_rounds(side: Found, load: str, what: str, which: int) -> float:
    """Milliseconds: the median over rounds of the median (0) or the 95th percentile (1) of `first_s` or `next_s`."""
    return 1e3 * median(one["loads"][load][what][which] for one in side["rounds"])


def fastest(sides: Mapping[str, Found], among: Sequence[Side], load: str) -> str | None:
    """The name of whoever writes most tokens a second."""
    there = [side.name for side in among if side.name in sides]
    return max(there, key=lambda name: median(rates(sides[name], load)), default=None)


def lead(sides: Mapping[str, Found], load: str) -> tuple[float, Interval] | None:
    """Our fastest over the fastest rival: the median of the rounds' ratios, and its ends; None without rivals."""
    mine, other = fastest(sides, OURS, load), fastest(sides, THEIRS, load)
    if mine is None or other is None:
        return None
    ratios = [ours / theirs for ours, theirs in zip(rates(sides[mine], load), rates(sides[other], load), strict=False)]
    return median(ratios), (min(ratios), max(ratios))


def figures(found: Found) -> tuple[dict[str, float], dict[str, Interval]]:
    """Values by name, and the spread of those that have one."""
    sides, values, spread = found["sides"], dict[str, float](), dict[str, Interval]()
    for load in found["loads"]:
        if (led := lead(sides, load)) is not None:
            kind, streams = load.split("_")
            values[f"lead_over_best_at_{streams}_{kind}"], spread[f"lead_over_best_at_{streams}_{kind}"] = led
    values |= _beside_the_best(sides)
    values |= floors(found)
    for name, side in sides.items():
        values |= by_itself(name, side, found["loads"])
    return values, spread


def _beside_the_best(sides: Mapping[str, Found], load: str = "short_8") -> dict[str, float]:
    """At eight streams, the fastest rival's time to the first token and memory, over those of our fastest."""
    mine, other = fastest(sides, OURS, load), fastest(sides, THEIRS, load)
    if mine is None or other is None:
        return {}
    first = [of_rounds(sides[name], load, "first_s", 0) for name in (other, mine)]
    return {"ttft_ratio_at_8": first[0] / first[1], "memory_ratio": _peak(sides[other]) / _peak(sides[mine])}


def _peak(side: Found) -> float:
    return median(one["peak_mb"] for one in side["rounds"])


def floors(found: Found) -> dict[str, float]:
    """What this machine reads and multiplies, and how much of that our fastest with one stream makes use of.

    Writing reads all weights for each token. Reading the long beginning, nobody knows it yet, multiplies each of its
    tokens with all weights but the embedding's.
    """
    values = {"read_gb_per_s": found["bytes_per_s"] / 1e9, "float32_gproducts_per_s": found["products_per_s"] / 1e9}
    sides = found["sides"]
    if mine := fastest(sides, OURS, "short_1"):
        written = median(rates(sides[mine], "short_1")) * sides[mine]["size_bytes"]
        values["floor_utilisation"] = written / found["bytes_per_s"]
        read_s = median(one["loads"]["prefix_1"]["cold_s"] for one in sides[mine]["rounds"])
        products = found["prefix_tokens"] * found["inner_parameters"]
        values["prefill_tokens_per_s"] = found["prefix_tokens"] / read_s
        values["prefill_floor_utilisation"] = products / read_s / found["products_per_s"]
    return values


def by_itself(name: str, side: Found, loads: Sequence[str]) -> dict[str, float]:
    """Figures of one side."""
    values = {f"as_fp32_{name}": side["as_fp32"]} if "as_fp32" in side else {}
    values |= {f"size_mb_{name}": side["size_bytes"] / 1e6, f"peak_mb_{name}": _peak(side)}
    for load in loads:
        values[f"tokens_per_s_{load}_{name}"] = median(rates(side, load))
        for what in ("first", "next"):
            for which, share in enumerate(("p50", "p95")):
                values[f"{what}_{share}_ms_{load}_{name}"] = of_rounds(side, load, f"{what}_s", which)
    return values


def as_exact(side: Found, exact: Found, ends: Sequence[int], load: str = "short_1") -> float:
    """The share of the exact weights' tokens, up to the end of each answer, that a side wrote in their places."""
    same = count = 0
    for mine, other in zip(_answers(side, load), _answers(exact, load), strict=True):
        until = next((i + 1 for i, token in enumerate(other) if token in ends), len(other))
        same += sum(one == two for one, two in zip(mine[:until], other[:until], strict=False))
        count += until
    return same / count


def _answers(side: Found, load: str) -> list[list[int]]:
    return [answer for stream in side["rounds"][0]["loads"][load]["answers"] for answer in stream]


HEADS = ("", "tokens/s", "first ms", "p95", "next ms", "p95")


def table(found: Found) -> str:
    """A table of each load, and one of the sides, in Markdown."""
    sides = [side for side in (*OURS, *THEIRS) if side.name in found["sides"]]
    tables = [_of_load(found, sides, load) for load in found["loads"]]
    heads = ("", "MB", "peak MB", "load s", "as fp32")
    tables.append("the sides\n\n" + lines(heads, [_of_side(side, found["sides"][side.name]) for side in sides]))
    return "\n\n".join(tables)


def _of_load(found: Found, sides: Sequence[Side], load: str) -> str:
    rows = []
    for side in sides:
        one = found["sides"][side.name]
        times = [of_rounds(one, load, what, which) for what in ("first_s", "next_s") for which in (0, 1)]
        rows.append([side.title, f"{median(rates(one, load)):.0f}", *(f"{ms:.0f}" for ms in times)])
    kind, streams = load.split("_")
    return f"{kind} prompts, streams: {streams}\n\n{lines(HEADS, rows)}"


def _of_side(side: Side, one: Found) -> list[str]:
    load_s = median(one_round["load_s"] for one_round in one["rounds"])
    same = "" if side.name == EXACT or "as_fp32" not in one else f"{one['as_fp32']:.2f}"
    return [side.title, f"{one['size_bytes'] / 1e6:.1f}", f"{_peak(one):.0f}", f"{load_s:.1f}", same]


def lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows))
