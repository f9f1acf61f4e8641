"""All models side by side on the same rows: quality with its certainty, cost, and what was saved."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.data.read import read_jsonl
from slmops.errors import BadInput
from slmops.evaluate.significance import (
    Statistic,
    mcnemar,
    mean,
    micro_f1,
    paired_bootstrap,
    ratio_interval,
    rows_needed,
    wilson,
)
from slmops.pipeline.environment import cpu_model
from slmops.tasks.base import Row, Task

RIVALS = ("baseline", "floor")
"""What the shipped model must beat to be worth its making."""


@dataclass(frozen=True)
class Scored:
    """One model's measured figures and, where it answered the rows, its answers judged one by one."""

    figures: Mapping[str, Any]
    texts: Sequence[str]
    judged: Sequence[Mapping[str, float]]


def compare(
    task: Task,
    rows: Sequence[Row],
    scored: Mapping[str, Path],
    *,
    seed: int,
    ours: str = "shipped",
    reference: str = "teacher",
) -> dict[str, Any]:
    """The evidence: plain JSON with every figure, from the folders that `Score` and `Floor` wrote.

    Returns:
        `n_test`; `models` by role with `quality`, `interval` (95 %, exact match) and measured figures; `kept`, the
        shares of the teacher's quality that the shipped model keeps; `savings` of time, weights and memory against
        the teacher (0.9 = nine tenths saved); `paired` tests of the shipped model against its rivals. No row of the
        data is in it: the evidence travels with the bundle.
    """
    read = {role: _read(task, rows, folder) for role, folder in scored.items()}
    return {
        "task": task.describe(),
        "n_test": len(rows),
        "machine": {"processor": cpu_model(), "system": platform.platform()},
        "models": {role: _model(task, one) for role, one in read.items()},
        **_kept(read[ours].judged, read[reference].judged, seed),
        "savings": _savings(read, ours, reference),
        "parity": _parity(read) if ours == "shipped" else None,
        "paired": [_paired(read[ours], read[rival], rival, seed) for rival in _rivals(read, ours)],
        "rows_for_one_point": _rows_for_one_point(read[ours].judged, read[reference].judged),
    }


def _rivals(read: Mapping[str, Scored], ours: str) -> list[str]:
    """In a run those that the shipped model must beat, elsewhere all others."""
    return [role for role in read if (role in RIVALS if ours == "shipped" else role != ours)]


def _read(task: Task, rows: Sequence[Row], folder: Path) -> Scored:
    figures = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
    path = folder / "predictions.jsonl"
    if not path.exists():
        return Scored(figures, (), ())
    predictions = read_jsonl(path)
    if [p["id"] for p in predictions] != [row["id"] for row in rows]:
        raise BadInput(f"{path} does not answer the {len(rows)} test rows one by one, in their order")
    texts = [p["text"] for p in predictions]
    judged = [task.judge(row["output"], task.parse(text)) for row, text in zip(rows, texts, strict=True)]
    return Scored(figures, texts, judged)


def _model(task: Task, one: Scored) -> dict[str, Any]:
    figures: dict[str, Any] = dict(one.figures)
    if one.judged:
        hits = int(sum(row["exact_match"] for row in one.judged))
        figures["quality"] = dict(task.metrics(one.judged))
        figures["interval"] = list(wilson(hits, len(one.judged)))
    return figures


def _kept(shipped: Sequence[Mapping[str, float]], teacher: Sequence[Mapping[str, float]], seed: int) -> dict[str, Any]:
    """Shares of the teacher's figures that the shipped model keeps, each with its 95 % interval."""
    kept: dict[str, float | None] = {}
    interval: dict[str, list[float] | None] = {}
    for figure, columns, of in _compared(shipped):
        ours, theirs = _columns(shipped, columns), _columns(teacher, columns)
        ends = ratio_interval(ours, theirs, of, seed=seed)
        name = f"{figure}_kept"
        kept[name] = None if ends is None else float(of(ours.mean(0)[None])[0] / of(theirs.mean(0)[None])[0])
        interval[name] = None if ends is None else list(ends)
    return {"kept": kept, "kept_interval": interval}


def _compared(judged: Sequence[Mapping[str, float]]) -> list[tuple[str, tuple[str, ...], Statistic]]:
    """Figures that are compared row by row: name, columns of a judged row, and how they make the figure."""
    figures: list[tuple[str, tuple[str, ...], Statistic]] = [("exact_match", ("exact_match",), mean)]
    counts = ("field_tp", "field_fp", "field_fn")
    return [*figures, ("field_f1", counts, micro_f1)] if counts[0] in judged[0] else figures


def _columns(judged: Sequence[Mapping[str, float]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([[row[name] for name in names] for row in judged])


def _savings(read: Mapping[str, Scored], ours: str, reference: str) -> dict[str, float]:
    """Shares saved against the teacher: 1 - shipped / teacher; of figures that both have."""
    shipped, teacher = read[ours].figures, read[reference].figures
    pairs = {
        "time_saving_torch": ("latency_p50_ms", teacher),
        "weights_saving": ("weights_bytes", teacher),
        "memory_saving": ("peak_rss_bytes", teacher),
    }
    if "teacher_same" in read:
        pairs["time_saving_same_engine"] = ("latency_p50_ms", read["teacher_same"].figures)
    return {
        name: 1 - shipped[figure] / base[figure]
        for name, (figure, base) in pairs.items()
        if figure in shipped and figure in base
    }


def _parity(read: Mapping[str, Scored]) -> float | None:
    """Share of test rows to which the shipped model writes the same text as the student it was made from."""
    if "student" not in read:
        return None
    pairs = list(zip(read["student"].texts, read["shipped"].texts, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def _paired(shipped: Scored, rival: Scored, name: str, seed: int) -> dict[str, Any]:
    """Is the shipped model better than a rival on the same rows?"""
    tests: dict[str, Any] = {"rival": name}
    for figure, columns, of in _compared(shipped.judged):
        difference = paired_bootstrap(_columns(shipped.judged, columns), _columns(rival.judged, columns), of, seed=seed)
        tests[figure] = {
            "points": difference.value * 100,
            "interval": list(difference.interval),
            "p": difference.p_value,
        }
    exact = [[row["exact_match"] for row in one.judged] for one in (shipped, rival)]
    tests["exact_match"]["p_mcnemar"] = mcnemar(*exact)
    return tests


def _rows_for_one_point(shipped: Sequence[Mapping[str, float]], teacher: Sequence[Mapping[str, float]]) -> int | None:
    """Test rows it would take to see a difference of one point of exact match between shipped model and teacher."""
    pairs = zip(shipped, teacher, strict=True)
    apart = [a["exact_match"] != b["exact_match"] for a, b in pairs]
    share = sum(apart) / len(apart)
    return rows_needed(share) if share >= 0.01 else None


def errors(task: Task, rows: Sequence[Row], folder: Path, *, most: int = 12) -> list[dict[str, str]]:
    """The first rows that the model scored in `folder` answers wrongly, with what was wanted."""
    one = _read(task, rows, folder)
    wrong = [
        {"input": row["input"], "wanted": task.write(row["output"]), "written": text}
        for row, text, judged in zip(rows, one.texts, one.judged, strict=True)
        if not judged["exact_match"]
    ]
    return wrong[:most]
