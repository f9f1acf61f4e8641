"""The part of the graph that trains several adapters on one base, merges them, and measures all of them.

For each adapter NAME the graph of a recipe with this adapter alone, whose nodes bear its name: `data:NAME`,
`adapter:NAME`, `score:…:NAME`, `evaluate:NAME`, `report:NAME`. `student:base` is the same for all. For each merge HOW
`merge:HOW`, and for each of its adapters `score:merged:HOW:NAME`; `merged:NAME` compares them with the adapter alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from slmops.data.stage import prepare_data_node
from slmops.errors import BadInput
from slmops.evaluate.stage import Compare, Score, ScoreSettings
from slmops.pipeline.plan.checks import check
from slmops.pipeline.plan.evaluation import evaluation_nodes, report_node
from slmops.pipeline.plan.names import base_node
from slmops.pipeline.plan.tuning import tuning_nodes
from slmops.pipeline.stage import Node
from slmops.recipe.models import Recipe
from slmops.recipe.several import MergeSettings
from slmops.report.several import MERGED
from slmops.report.stage_several import ReportSeveral, ReportSeveralSettings
from slmops.train.stage_merge import OF, MergeAdapters, MergeAdaptersSettings

_CALLED = {"student": "adapter"}
"""Nodes that are called something else where there are several."""


def several_nodes(recipe: Recipe) -> list[Node]:
    """The nodes of a run with `adapters`.

    Raises:
        BadInput: see `check`; it names the adapter.
    """
    nodes: dict[str, Node] = {}
    for name in recipe.adapters:
        nodes |= {node.id: node for node in _of_one(recipe.of_adapter(name), name)}
    merges = [merge_node(recipe, merge) for merge in recipe.merge]
    compared = [node for name in recipe.adapters for node in _compared(recipe, name, nodes[f"evaluate:{name}"])]
    before = [*nodes.values(), *merges, *compared]
    return [*before, _report(recipe, {node.id for node in before})]


def _of_one(alone: Recipe, name: str) -> list[Node]:
    """The graph of a recipe with this adapter alone."""
    try:
        check(alone)
        nodes = [prepare_data_node(alone), *tuning_nodes(alone)]
        nodes += evaluation_nodes(alone, {node.id for node in nodes})
    except BadInput as error:
        raise BadInput(f"adapters.{name}: {error}", hint=error.hint) from None
    nodes.append(report_node(alone, nodes))
    shared = base_node(alone)
    called = {node.id: f"{_CALLED.get(node.id, node.id)}:{name}" for node in nodes if node.id != shared}
    return [
        replace(
            node,
            id=called.get(node.id, node.id),
            inputs={own: called.get(source, source) for own, source in node.inputs.items()},
        )
        for node in nodes
    ]


def merge_node(recipe: Recipe, merge: MergeSettings) -> Node:
    """The adapters that become one."""
    weights = merge.weighted(list(recipe.adapters))
    settings = MergeAdaptersSettings(method=merge.method, weights=weights, density=merge.kept)
    inputs = {"base": base_node(recipe), **{OF + name: f"adapter:{name}" for name in weights}}
    return Node(f"merge:{merge.called}", MergeAdapters, settings, inputs=inputs)


def _compared(recipe: Recipe, name: str, evaluate: Node) -> Iterator[Node]:
    """What the merges make of the adapter's task, beside what was measured of the adapter; nothing where none has it.

    It is another comparison than `evaluate`, so that gates and their evidence do not hang on who else was merged.
    """
    merges = [merge for merge in recipe.merge if name in merge.weighted(list(recipe.adapters))]
    settings = recipe.adapters[name].evaluate
    score = ScoreSettings(latency_requests=settings.latency_requests, threads=settings.threads)
    inputs = dict(evaluate.inputs)
    for merge in merges:
        node = f"score:{MERGED}{merge.called}:{name}"
        yield Node(node, Score, score, inputs={"model": f"merge:{merge.called}", "data": f"data:{name}"})
        inputs[MERGED + merge.called] = node
    if merges:
        measured = evaluate.settings.model_copy(update={"gates": {}})
        yield Node(f"merged:{name}", Compare, measured, inputs=inputs, sources=evaluate.sources)


def _report(recipe: Recipe, made: set[str]) -> Node:
    """The one table of all."""
    inputs: dict[str, str] = {}
    for name in recipe.adapters:
        wanted = [f"evaluate:{name}", f"merged:{name}", f"adapter:{name}"]
        inputs |= {node: node for node in wanted if node in made}
    inputs |= {f"merge:{merge.called}": f"merge:{merge.called}" for merge in recipe.merge}
    settings = ReportSeveralSettings(recipe=recipe.shareable())
    return Node("report", ReportSeveral, settings, inputs=inputs)
