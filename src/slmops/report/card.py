"""The model card: what Hugging Face and people want to know of a model, as Markdown with metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slmops.report.costs import measured
from slmops.report.teachers import answering
from slmops.report.verdict import judge, reference_of
from slmops.report.words import figure_name, full, healing, in_order, percent, shown, visible, written_by_teacher

_PIPELINES = {
    "classification": "text-classification",
    "nli": "text-classification",
    "qa": "question-answering",
    "summarisation": "summarization",
}
"""Hugging Face's name of a task kind; every other kind writes text."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def card(
    name: str,
    evidence: Mapping[str, Any],
    gates: Sequence[Mapping[str, Any]] = (),
    *,
    version: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    healed: Mapping[str, Any] | None = None,
) -> str:
    """`MODEL_CARD.md` of the model that the evidence is about.

    Args:
        name: of the bundle.
        recipe: as resolved, without paths.
        data: `data.json`.
        healed: `heal.json`.
    """
    verdict = judge(evidence, gates)
    title = f"# {name}{f' {version}' if version else ''}"
    parts = [title, *_purpose(evidence), *_figures(evidence, verdict.subject), "## Verdict", f"**{verdict.title}.**"]
    parts += [_list([*verdict.reasons, *(f"Gate {gate['state']}: {gate['message']}" for gate in gates)])]
    parts += [*_measured(evidence), *_made(recipe, data, healed), *_limits(evidence), *_run(name)]
    return f"---\n{metadata(name, evidence, verdict.subject, recipe)}---\n\n" + "\n\n".join(parts) + "\n"


def metadata(name: str, evidence: Mapping[str, Any], subject: str, recipe: Mapping[str, Any] | None) -> str:
    """The card's YAML, with the model's figures as evaluation results."""
    from huggingface_hub import EvalResult, ModelCardData

    model, pipeline = evidence["models"][subject], _PIPELINES.get(evidence["task"]["kind"], "text-generation")
    figures = model.get("quality", {})
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type="private",
            dataset_name=f"{name}, {evidence['n_test']} held-out rows",
            metric_type=figure,
            metric_name=figure_name(figure),
            metric_value=round(value, 6),
        )
        for figure, value in figures.items()
    ]
    base = [model for model in _bases(recipe or {}) if _HUB_ID.fullmatch(model)]
    return (
        ModelCardData(
            model_name=name,
            pipeline_tag=pipeline,
            library_name=model.get("engine"),
            tags=["slmops", evidence["task"]["kind"]],
            base_model=base or None,
            eval_results=results or None,
            ignore_metadata_errors=False,
        ).to_yaml()
        + "\n"
    )


def _bases(recipe: Mapping[str, Any]) -> list[str]:
    """The models whose weights the student began as: its own, or its teachers'."""
    own = recipe.get("student", {}).get("model")
    return [str(own)] if own else [str(teacher.get("model", "")) for teacher in answering(recipe)]


def _purpose(evidence: Mapping[str, Any]) -> Iterator[str]:
    task = evidence["task"]
    kinds = {
        "classification": "gives a text one label out of a closed set",
        "extraction": "reads the fields of a JSON object out of a text",
    }
    yield "## What it is for"
    yield f"This model does one task, {task['kind']}: it {kinds.get(task['kind'], 'answers a text')}."
    if task.get("labels"):
        yield f"Labels: {_plain(', '.join(map(str, task['labels'])))}."
    if task.get("schema"):
        yield f"Fields: {_plain(', '.join(task['schema']['properties']))}."


def _figures(evidence: Mapping[str, Any], subject: str) -> Iterator[str]:
    """The models side by side; the figures of quality with their intervals."""
    first = [subject, reference_of(evidence, subject)]
    roles = [r for r in first if r] + [r for r in in_order(evidence["models"]) if r not in first]
    models = {role: evidence["models"][role] for role in roles}
    rows = [["", *(_plain(full(role)) for role in roles)]]
    for figure in dict.fromkeys(name for model in models.values() for name in model.get("quality", {})):
        rows.append([figure_name(figure), *(_with_interval(figure, model) for model in models.values())])
    for cost in measured(models, main_only=True):
        label = f"{cost.label}, {cost.unit}".removesuffix(", ")
        rows.append([label, *(cost.text(model) or "–" for model in models.values())])
    yield "## Figures"
    yield "\n".join([_cells(rows[0]), _cells(["---", *("---:" for _ in roles)]), *map(_cells, rows[1:])])


def _with_interval(figure: str, model: Mapping[str, Any]) -> str:
    if figure not in model.get("quality", {}):
        return "–"
    low, high = (shown(figure, end) for end in model["interval"][figure])
    return f"{shown(figure, model['quality'][figure])} ({low} to {high})"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _measured(evidence: Mapping[str, Any]) -> Iterator[str]:
    machine = evidence["machine"]
    yield "## How it was measured"
    yield (
        f"All models answered the same {evidence['n_test']:,} held-out rows greedily. In brackets stand 95 % "
        "intervals. Models are compared on the same rows, and p is corrected for the number of comparisons (Holm). "
        "Latency is the time of one request after a warm-up, in a process that holds this model alone."
    )
    yield f"Machine: {_plain(str(machine['processor']))}, {_plain(str(machine['system']))}."


def _made(
    recipe: Mapping[str, Any] | None, data: Mapping[str, Any] | None, told: Mapping[str, Any] | None
) -> Iterator[str]:
    if recipe is None and data is None:
        return
    yield "## How it was made"
    if data:
        counts = ", ".join(f"{rows:,} {side}" for side, rows in data["rows"].items())
        yield f"Rows: {counts}. Texts that also stand in the test rows were taken out of the others."
        yield from written_by_teacher(data)
    if recipe:
        teachers = ", ".join(f"`{_plain(str(t.get('model') or t['path']))}`" for t in answering(recipe))
        own = recipe.get("student", {}).get("model")
        into = f" into `{_plain(str(own))}`" if own else ""
        made = f"Distilled from {teachers}{into}" if teachers else f"Fine-tuned from `{_plain(str(own))}`"
        yield f"{made} by slmops; seed {recipe['seed']}."
    if told:
        yield healing(told)


def _limits(evidence: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits"
    limits = [
        "It knows this task alone: on other texts its answers mean nothing.",
        "The figures hold for texts like the test rows; other wording, languages or lengths were not measured.",
        f"On {evidence['n_test']:,} rows small differences do not show; read the intervals, not the points.",
    ]
    if evidence["floor_beaten"] is None:
        limits.append("It was not compared with a trivial method.")
    if isinstance(evidence["same_text"], float):
        limits.append(f"Quantising changed {percent(1 - evidence['same_text'])} of its answers.")
    yield _list(limits)


def _run(name: str) -> Iterator[str]:
    yield "## How to run it"
    yield f'With slmops installed:\n\n```sh\nslmops predict {name} "a text"\n```'
    yield f'```python\nimport slmops\n\nslmops.open_bundle("{name}").predict("a text").answer\n```'


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", visible(text).replace("\n", " "))
