"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmops.pipeline.artifact import Figure
from slmops.pipeline.history import RunRecord

Pair = tuple[Any, Any]
"""The value in the first and in the second run; None where there is none."""


@dataclass(frozen=True)
class Difference:
    """What differs between two runs, first run first.

    Attributes:
        recipe: dotted path to the values that differ.
        environment: the same for machine and versions.
        steps: node to the keys that differ.
        metrics: node to figure to both values, for the nodes in `steps`; other nodes have the same artifact.
    """

    recipe: dict[str, Pair]
    environment: dict[str, Pair]
    steps: dict[str, tuple[str | None, str | None]]
    metrics: dict[str, dict[str, tuple[Figure | None, Figure | None]]]


def compare(first: RunRecord, second: RunRecord) -> Difference:
    """What differs between two runs."""
    before, after = ({step.node: step for step in run.steps} for run in (first, second))
    steps = _changed({node: step.key for node, step in before.items()}, {node: s.key for node, s in after.items()})
    metrics = {}
    for node in steps:
        old, new = (steps_of[node].metrics if node in steps_of else {} for steps_of in (before, after))
        metrics[node] = {name: (old.get(name), new.get(name)) for name in {**old, **new}}
    return Difference(
        recipe=_changed(dotted(first.recipe), dotted(second.recipe)),
        environment=_changed(dotted(first.environment), dotted(second.environment)),
        steps=steps,
        metrics={node: figures for node, figures in metrics.items() if figures},
    )


def dotted(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": [1]}}` as `{"a.b.0": 1}`; empty lists and objects stay as they are."""
    if not isinstance(value, dict | list) or not value:
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: leaf for name, item in items for path, leaf in dotted(item, f"{prefix}.{name}".strip(".")).items()}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Pair]:
    return {
        name: (before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name) or (name in before) != (name in after)
    }
