"""All models side by side on the same rows: quality with its certainty, cost, and what was saved."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slmops.data.check import check_classes
from slmops.evaluate.calibration import calibration
from slmops.evaluate.label_tables import label_tables, labels_of
from slmops.evaluate.predictions import Scored, check_rows, read_scored
from slmops.evaluate.significance import (
    Drawn,
    Interval,
    difference,
    draw,
    holm,
    interval,
    mcnemar,
    ratio,
    rows_needed,
    rows_needed_for_spread,
    spread,
    wilson,
)
from slmops.pipeline.environment import cpu_model
from slmops.tasks.base import ParseFailure, Row, Task
from slmops.tasks.custom import CustomMetric
from slmops.tasks.figures import Array, Figure, mean

FORMAT = 2
SURE = 0.05
"""A difference whose corrected p-value is below this is taken for one."""


class Sample(NamedTuple):
    """One model's figure: its columns, shape [rows, columns], and what it is in every resample of the rows."""

    figure: Figure
    table: Array
    drawn: Drawn

    @property
    def is_share(self) -> bool:
        """Whether the figure says of how many rows something is true."""
        return self.figure.of is mean and bool(np.isin(self.table, (0, 1)).all())


Samples = Mapping[str, Mapping[str, Sample]]
"""By role and figure; a figure that a model's rows do not speak to is not in it."""


def compare(
    task: Task,
    rows: Sequence[Row],
    scored: Mapping[str, Path],
    *,
    seed: int,
    metrics: Sequence[CustomMetric] = (),
    ours: str = "shipped",
    reference: str = "teacher",
) -> dict[str, Any]:
    """The evidence: plain JSON with every figure, from the folders that `Score` and `Floor` wrote.

    No row of the data is in it: the evidence travels with the bundle.

    Args:
        task: what the models do.
        rows: the test rows, with references.
        scored: folder by role.
        seed: of the resampling.
        metrics: figures of the user's own.
        ours: the role that is to be judged; what is kept and saved is said of it.
        reference: the role it is held against.

    Returns:
        `format`, `task`, `n_test`, `machine`, `headline` (the task's main figure), `ours`, `reference`; `models` by
        role with `quality`, `interval` (95 %), what the probe measured and, for tasks with labels, `classes`,
        `confusion` and perhaps `calibration`; `kept`, the shares of the reference's quality that ours keeps, with
        `kept_interval`; `savings` of time, weights and memory against it (0.9 = nine tenths saved); `same_text`;
        `paired`, a test of every two models on each figure that decides, ours being `ours` wherever it is one of the
        two; `floor_beaten`; and `rows_for_one_point`, the test rows that show a point of the headline between ours
        and the reference.

    Raises:
        BadInput: there are no rows, rows without references, or answers to other rows.
    """
    check_rows(task, rows)
    check_classes(rows, task)
    main = headline(task).name
    read = {role: read_scored(task, rows, folder, metrics) for role, folder in scored.items()}
    samples = _samples(read, seed)
    paired = _paired(samples, [figure.name for figure in task.figures() if figure.compared], ours)
    against = {(test["figure"], test["theirs"]): test for test in paired if test["ours"] == ours}
    return {
        "format": FORMAT,
        "task": task.describe(),
        "n_test": len(rows),
        "machine": _machine(),
        "headline": main,
        "ours": ours,
        "reference": reference,
        "models": _models(task, rows, read, samples),
        **_kept(task, samples, ours, reference),
        "savings": _savings(read, ours, reference),
        "same_text": _same_text(read, ours),
        "paired": paired,
        "floor_beaten": _beaten(against.get((main, "floor"))),
        "rows_for_one_point": against.get((main, reference), {}).get("rows_for_one_point"),
    }


def headline(task: Task) -> Figure:
    """The task's main figure."""
    return task.figures()[0]


def _machine() -> dict[str, Any]:
    import psutil

    return {
        "processor": cpu_model(),
        "system": platform.platform(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
    }


def _samples(read: Mapping[str, Scored], seed: int) -> Samples:
    """Every figure of every model in the same resamples of the rows."""
    tables = [
        (role, figure, figure.table(one.judged)) for role, one in read.items() if one.judged for figure in one.figures
    ]
    known = [entry for entry in tables if not np.isnan(entry[1].of(entry[2].mean(axis=0, keepdims=True))).any()]
    samples: dict[str, dict[str, Sample]] = {role: {} for role in read}
    drawn = draw([(table, figure.of) for _, figure, table in known], seed=seed) if known else []
    for (role, figure, table), one in zip(known, drawn, strict=True):
        samples[role][figure.name] = Sample(figure, table, one)
    return samples


def _models(task: Task, rows: Sequence[Row], read: Mapping[str, Scored], samples: Samples) -> dict[str, Any]:
    labels = labels_of(task, rows, [one.answers for one in read.values()])
    models: dict[str, Any] = {}
    for role, one in read.items():
        models[role] = dict(one.measured)
        if not one.judged:
            continue
        models[role]["quality"] = {name: sample.drawn.value for name, sample in samples[role].items()}
        models[role]["interval"] = {name: list(_interval(sample)) for name, sample in samples[role].items()}
        if labels:
            models[role] |= label_tables(task, rows, one.answers, labels)
        if one.confidence is not None:
            models[role]["calibration"] = calibration(one.confidence, _right(task, rows, one.answers))
    return models


def _interval(sample: Sample) -> Interval:
    rows = len(sample.table)
    return wilson(int(sample.table.sum()), rows) if sample.is_share else interval(sample.drawn)


def _right(task: Task, rows: Sequence[Row], answers: Sequence[Any]) -> Array:
    return np.array(
        [
            not isinstance(answer, ParseFailure) and task.label(answer) == task.label(row["output"])
            for row, answer in zip(rows, answers, strict=True)
        ],
        dtype=np.float64,
    )


def _kept(task: Task, samples: Samples, ours: str, reference: str) -> dict[str, Any]:
    """Shares of the reference's figures that ours keeps, each with its 95 % interval."""
    kept: dict[str, float | None] = {}
    intervals: dict[str, list[float] | None] = {}
    for figure in task.figures():
        pair = [samples[role][figure.name].drawn for role in (ours, reference) if figure.name in samples.get(role, ())]
        if not figure.compared or len(pair) < 2:
            continue
        ends = ratio(*pair)
        name = f"{figure.name}_kept"
        kept[name] = None if ends is None else pair[0].value / pair[1].value
        intervals[name] = None if ends is None else list(ends)
    return {"kept": kept, "kept_interval": intervals}


def _savings(read: Mapping[str, Scored], ours: str, reference: str) -> dict[str, float]:
    """Shares saved against the reference: 1 - ours / reference; what was not measured of both is left out."""
    against = {
        "time_saving_torch": ("latency_p50_ms", reference),
        "weights_saving": ("weights_bytes", reference),
        "memory_saving": ("peak_rss_bytes", reference),
        "time_saving_same_engine": ("latency_p50_ms", f"{reference}_same"),
    }
    savings = {}
    for name, (measure, role) in against.items():
        values = [read[one].measured.get(measure) for one in (ours, role) if one in read]
        if len(values) == 2 and values[0] is not None and values[1]:
            savings[name] = 1 - values[0] / values[1]
    return savings


def _same_text(read: Mapping[str, Scored], ours: str) -> float | None:
    """Share of test rows to which ours writes the same text as the student it was made from."""
    if "student" not in read or ours not in read:
        return None
    pairs = list(zip(read["student"].texts, read[ours].texts, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def _paired(samples: Samples, figures: Sequence[str], ours: str) -> list[dict[str, Any]]:
    """Every two models on each figure, with corrected p-values.

    The questions that an evaluation is made for, ours against each other model, are one family of tests; all other
    pairs, which only explain what is seen, are another.
    """
    paired: list[dict[str, Any]] = []
    for figure in figures:
        roles = sorted((role for role in samples if figure in samples[role]), key=lambda role: role != ours)
        tests = [
            {"ours": one, "theirs": other, "figure": figure, **_test(samples[one][figure], samples[other][figure])}
            for one, other in combinations(roles, 2)
        ]
        for family in ([t for t in tests if t["ours"] == ours], [t for t in tests if t["ours"] != ours]):
            for test, adjusted in zip(family, holm([test["p"] for test in family]), strict=True):
                paired.append({**test, "p_adjusted": adjusted})
    return paired


def _test(ours: Sample, theirs: Sample) -> dict[str, Any]:
    apart = difference(ours.drawn, theirs.drawn)
    if shares := ours.is_share and theirs.is_share:
        discordant = float((ours.table != theirs.table).mean())
        p_value, needed = mcnemar(ours.table, theirs.table), rows_needed(discordant) if discordant >= 0.01 else None
    else:
        each = spread(ours.drawn, theirs.drawn, len(ours.table))
        p_value, needed = apart.p_value, rows_needed_for_spread(each) if each > 0 else None
    return {
        "points": apart.value * 100,
        "interval": [end * 100 for end in apart.interval],
        "p": p_value,
        "test": "mcnemar" if shares else "bootstrap",
        "rows_for_one_point": needed,
    }


def _beaten(test: Mapping[str, Any] | None) -> bool | None:
    """Whether ours is better beyond chance; None where the two were not compared."""
    return None if test is None else bool(test["points"] > 0 and test["p_adjusted"] < SURE)


def errors(task: Task, rows: Sequence[Row], folder: Path, *, most: int = 12) -> list[dict[str, str]]:
    """The rows that the model scored in `folder` answers worst by the headline, with what was wanted.

    Of rows that are as bad the first ones; none that is as good as can be.
    """
    one, figure = read_scored(task, rows, folder), headline(task)
    values = figure.of(figure.table(one.judged))
    worst = [place for place in np.argsort(values, kind="stable") if values[place] < 1]
    return [
        {
            "input": rows[place]["input"],
            "wanted": task.write(rows[place]["output"]),
            "written": one.texts[place],
        }
        for place in worst[:most]
    ]
