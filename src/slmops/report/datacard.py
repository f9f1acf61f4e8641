"""The data card for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slmops.console import fit
from slmops.report.words import percent, three, visible

_WIDTH = 100


def as_text(card: Mapping[str, Any]) -> str:
    """`card.json` as lines."""
    return "\n".join([*_figures(card), *_classes(card), *_dropped(card), *_samples(card)])


def _figures(card: Mapping[str, Any]) -> Iterator[str]:
    for side, rows in card["rows"].items():
        yield f"{side:<12} {rows:>8,} rows"
    cost, lengths = card["cost"], card["characters"]
    yield f"{'answers':<12} {cost['answer_tokens']:>8,} tokens, {three(lengths['p50'])} characters in the middle"
    if "requests" in cost:
        usd = "price unknown" if cost["usd"] is None else f"{three(cost['usd'])} USD"
        yield f"{'bought':<12} {cost['bought_tokens']:>8,} tokens in {cost['requests']:,} requests, {usd}"
    if card["agreement"]:
        yield f"{'agreement':<12} {percent(card['agreement']['unanimous']):>8} of the answers had every vote"


def _classes(card: Mapping[str, Any]) -> Iterator[str]:
    if not card["labels"]:
        return
    yield f"\n{'class':<30} {'labelled':>8} {'answers':>8}"
    for label, rows in sorted(card["labels"].items(), key=lambda one: (-sum(one[1].values()), one[0])):
        yield f"{fit(visible(label), 30):<30} {rows['train']:>8,} {rows['answers']:>8,}"
    if card["imbalance"]:
        yield f"the largest has {three(card['imbalance'])} times the rows of the smallest"


def _dropped(card: Mapping[str, Any]) -> Iterator[str]:
    if not card["dropped"]:
        return
    yield f"\n{'dropped':<18} {'of':<10} {'by':<8} {'rows':>8}"
    for one in card["dropped"]:
        yield f"{one['reason']:<18} {one['side']:<10} {one['stage']:<8} {one['rows']:>8,}"
        for row in one["examples"]:
            said = row["text"] if row["input"] == "" else row["input"]
            yield "  " + fit(f"{row['id']}: {visible(said or '')}".replace("\n", " "), _WIDTH)
            like = f" ({row['like']})" if row["like"] else ""
            yield "    " + fit(visible(f"{row['detail']}{like}"), _WIDTH)


def _samples(card: Mapping[str, Any]) -> Iterator[str]:
    yield "\nsamples"
    for row in card["samples"]:
        yield "  " + fit(visible(row["input"]).replace("\n", " "), _WIDTH)
        yield "    " + fit(visible(row["text"]).replace("\n", " "), _WIDTH)
