"""The part of the graph that trains several adapters on one base, merges them, and measures all of them.

For each adapter NAME the graph of a recipe with this adapter alone, whose nodes bear its name: `data:NAME`,
`adapter:NAME`, `score:…:NAME`, `evaluate:NAME`, `report:NAME`. `student:base` is the same for all. For each merge HOW
`merge:HOW`, and for each of its adapters `score:merged:HOW:NAME`; `merged:NAME` compares them with the adapter alone.
What ships is the base with a slot beside each matrix and all adapters (`shipped`), in one `bundle` that `parity` asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from slmops.bundle.stage import WriteAdapters, WriteBundleSettings
from slmops.compress.stage_adapters import ConvertAdapters
from slmops.data.stage import prepare_data_node
from slmops.errors import BadInput
from slmops.evaluate.stage import Compare, Score, ScoreSettings
from slmops.evaluate.stage_parity import CheckAdapters, CheckAdaptersSettings
from slmops.models.adapters.files import OF
from slmops.pipeline.plan.checks import check
from slmops.pipeline.plan.evaluation import evaluation_nodes, report_node
from slmops.pipeline.plan.names import base_node, part_of
from slmops.pipeline.plan.tuning import tuning_nodes
from slmops.pipeline.stage import Node
from slmops.recipe.compress import CompressSettings
from slmops.recipe.models import Recipe
from slmops.recipe.several import MergeSettings
from slmops.report.several import MERGED
from slmops.report.stage_several import ReportSeveral, ReportSeveralSettings
from slmops.train.stage_merge import MergeAdapters, MergeAdaptersSettings

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
    before = [*nodes.values(), *merges, *compared, *(_shipped(recipe) if recipe.slots else [])]
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


def _shipped(recipe: Recipe) -> list[Node]:
    """The base and the adapters beside it, as one bundle, and what it says held against what was trained."""

    def of_all(*steps: str) -> dict[str, str]:
        return {node: node for step in steps for node in (f"{step}:{name}" for name in recipe.adapters)}

    ships = part_of(CompressSettings, recipe.compress)
    bundle = WriteBundleSettings(
        name=recipe.bundle.name or recipe.name, version=recipe.bundle.version, recipe=recipe.shareable()
    )
    bounds = {name: adapter.evaluate.parity for name, adapter in recipe.adapters.items()}
    asked = CheckAdaptersSettings(adapters=bounds, threads=recipe.evaluate.threads)
    base, whole = {"base": base_node(recipe)}, of_all("data", "evaluate")
    return [
        Node("shipped", ConvertAdapters, ships, inputs=base | of_all("adapter")),
        Node("bundle", WriteAdapters, bundle, inputs={"model": "shipped", **whole}),
        Node("parity", CheckAdapters, asked, inputs={**base, "bundle": "bundle", **of_all("adapter", "data")}),
    ]


def _report(recipe: Recipe, made: set[str]) -> Node:
    """The one table of all."""
    inputs: dict[str, str] = {}
    for name in recipe.adapters:
        wanted = [f"evaluate:{name}", f"merged:{name}", f"adapter:{name}"]
        inputs |= {node: node for node in wanted if node in made}
    inputs |= {f"merge:{merge.called}": f"merge:{merge.called}" for merge in recipe.merge}
    inputs |= {"parity": "parity"} if recipe.slots else {}
    settings = ReportSeveralSettings(recipe=recipe.shareable())
    return Node("report", ReportSeveral, settings, inputs=inputs)
