"""Stages that refuse a student before its teacher is fitted and has answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.objective import Objective
from slmops.recipe.settings import Settings
from slmops.recipe.student import Carve


class CheckCut:
    """`model` (not yet fitted) → `width.json`, how wide it is; refuses a width that it cannot be cut down to."""

    name: ClassVar[str] = "check-cut"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    def run(self, inputs: Mapping[str, Path], settings: Carve, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import load_model
        from slmops.models.width import check_width, width_of

        model = load_model(inputs["model"] / "model")
        check_width(model, heads=settings.heads, channels=settings.channels)
        width = asdict(width_of(model))
        (context.out / "width.json").write_text(json.dumps(width) + "\n", encoding="utf-8")
        return width


class CheckMarks:
    """`data` → `marks.json`, how many labelled rows a student that labels can learn; refuses too few."""

    name: ClassVar[str] = "check-marks"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.tasks import task_of
        from slmops.train.tagged import check_rows

        rows = read_jsonl(inputs["data"] / "train.jsonl")
        found = {"rows": len(rows), "not_in_text": check_rows(rows, task_of(inputs["data"]))}
        (context.out / "marks.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        return found


class PairSettings(Settings):
    """What a student of another model is to imitate."""

    objective: Objective


class CheckPair:
    """`teacher` (not yet fitted), `student` (another model) → `pair.json`; refuses terms that the two do not allow."""

    name: ClassVar[str] = "check-pair"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(self, inputs: Mapping[str, Path], settings: PairSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.train.kinship import ids_at_teacher
        from slmops.train.objectives.make import refuse_token_by_token

        student, teacher = (Tokenizer.load(inputs[side] / "model") for side in ("student", "teacher"))
        shared = ids_at_teacher(student, teacher) is not None
        if not shared:
            refuse_token_by_token(settings.objective)
        vocabulary = "shared" if shared else "own"
        pair: dict[str, float | str] = {
            "vocabulary": vocabulary,
            "tokens": student.size,
            "tokens_of_teacher": teacher.size,
        }
        (context.out / "pair.json").write_text(json.dumps(pair) + "\n", encoding="utf-8")
        return pair
