"""What a finished cell leaves, as one file of `results/headline/`, and how long others will take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _headline.cells import Cell
from slmops.tasks.figures import Array

Record = Mapping[str, Any]
"""
    cell, rung, asked   which cell, and everything that was asked for: see `Cell.asked`
    machine, commit     what it was measured on, and the code
    rows, left_out      rows of each part, and training rows of the source that were not used
    validation, test    by role, the figures of these rows
    each                by part and role, the task's headline of each row: a digit, or a number where it is no 0 or 1
    counts              by part and role, a digit for each row: slots found, invented and missed
    measured            by role: latency_p50_ms, weights_bytes, peak_rss_bytes
    savings             of the shipped model against the teacher
    kept_layers         of the teacher, by the student
    stage_s, train_s    seconds of each stage, and of the training steps within
"""

COUNTS = ("field_tp", "field_fp", "field_fn")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
SHAPED_BY_LAYERS = ("student", "baseline", "score:student", "score:baseline", "score:shipped")
GUESS_S = {"teacher": 900.0, "student": 600.0, "baseline": 240.0, "teach": 240.0, "score:teacher": 400.0}
"""Of stages that take long, before any cell has shown what they take; all others are taken for a minute."""


def encoded(values: Sequence[float]) -> str | list[float]:
    """Rights and wrongs as digits, all else as numbers of four places."""
    return digits(values) if {*values} <= {0, 1} else [round(float(value), 4) for value in values]


def digits(values: Iterable[float]) -> str:
    """Small whole numbers, one character each."""
    return "".join(_DIGITS[round(value)] for value in values)


def numbers(written: str | Sequence[float]) -> Array:
    """What `digits` or `encoded` wrote, shape [rows]."""
    return np.array([_DIGITS.index(one) if isinstance(one, str) else one for one in written], dtype=np.float64)


@dataclass(frozen=True)
class Folder:
    """The records of `path`, one file a cell."""

    path: Path

    def read(self) -> list[Record]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.path.glob("*.json"))]

    def write(self, record: Record) -> None:
        """Whole or not at all: a killed run must not leave half a record."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{record['cell']}.tmp"
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.replace(self.path / f"{record['cell']}.json")


def fresh(records: Iterable[Record], cells: Iterable[Cell]) -> dict[str, Record]:
    """By cell, the records of what the grid asks for now; one of older settings says nothing of these."""
    asked = {cell.name: cell.asked() for cell in cells}
    return {record["cell"]: record for record in records if asked.get(record["cell"]) == record["asked"]}


def estimate_s(missing: Iterable[str], cell: Cell, records: Sequence[Record]) -> float:
    """Seconds that a cell will take whose stages `missing` are to be made, by what these took in other cells.

    The same task and setting count first, then the nearest number of layers, which the student's own stages are
    proportional to.
    """
    return sum(_stage_s(stage, cell, records) for stage in missing)


def _stage_s(stage: str, cell: Cell, records: Sequence[Record]) -> float:
    layers = cell.student.layers if cell.student else 0
    known = [record for record in records if stage in record["stage_s"]]
    if not known:
        return GUESS_S.get(stage, 60.0)
    kind = f"{cell.task}.{cell.setting}."

    def distance(record: Record) -> tuple[bool, int]:
        return not record["cell"].startswith(kind), abs((record["kept_layers"] or 0) - layers)

    nearest = min(known, key=distance)
    scaled = stage in SHAPED_BY_LAYERS and nearest["kept_layers"] and layers
    return float(nearest["stage_s"][stage] * (layers / nearest["kept_layers"] if scaled else 1))
