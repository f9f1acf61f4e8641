"""Choosing the rows of a round, and measuring what they taught, as stages of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings

if TYPE_CHECKING:
    from slmops.tasks import Row


FIGURES = "figures.json"


class WeighSettings(Settings):
    """How many of the rest are looked at; None: all."""

    candidates: int | None


class WeighRows:
    """`model` (the student), `rows` (the pool) and `before` (the rows bought) → `doubts.jsonl`, of rows of the rest how
    unsure the student is of each.
    """

    name: ClassVar[str] = "weigh-rows"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: WeighSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer
        from slmops.select.doubt import doubts
        from slmops.select.draw import shuffled
        from slmops.tasks import task_of

        before = read_jsonl(inputs["before"] / "pool.jsonl")
        bought = {row["id"] for row in before}
        # Another draw in every round, and not that of the first rows.
        rest = shuffled(read_jsonl(inputs["rows"] / "pool.jsonl"), context.seed + len(before), bought)
        rows, model = rest[: settings.candidates], inputs["model"] / "model"
        engine, tokenizer = load_engine("transformers", model, gpu=True), Tokenizer.load(model)
        found = doubts(
            engine, tokenizer, task_of(inputs["rows"]), rows, work=context.work / "answers", progress=context.progress
        )
        told = ({"id": row["id"], "doubt": doubt} for row, doubt in zip(rows, found, strict=True))
        write_jsonl(context.out / "doubts.jsonl", told)
        return {"rows": len(rows), "rest": len(rest), "mean_doubt": sum(found) / max(len(found), 1)}


class DrawSettings(Settings):
    """How many rows come, and from which similarity two of them do not come together; None: any do."""

    rows: int
    unlike: float | None = None


class DrawRows:
    """`rows` (the pool) and perhaps `before` (the rows bought) and `doubts` → `pool.jsonl`, those before and new ones.

    The new ones are those with the greatest doubts; without any they are drawn by the seed.
    """

    name: ClassVar[str] = "draw-rows"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def run(self, inputs: Mapping[str, Path], settings: DrawSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.select.draw import doubted, shuffled, unlike
        from slmops.tasks import task_of

        before = read_jsonl(inputs["before"] / "pool.jsonl") if "before" in inputs else []
        rest = shuffled(read_jsonl(inputs["rows"] / "pool.jsonl"), context.seed, {row["id"] for row in before})
        if "doubts" in inputs:
            found = {row["id"]: row["doubt"] for row in read_jsonl(inputs["doubts"] / "doubts.jsonl")}
            rest = doubted(rest, found)
        new = unlike(rest, settings.rows, settings.unlike, task_of(inputs["rows"]).describe()["kind"])
        _write(context.out, inputs["rows"], [*before, *new])
        return {"rows": len(before) + len(new), "new": len(new)}


class KeepSettings(Settings):
    """The ids of the rows."""

    ids: list[str]


class KeepRows:
    """`rows` → those of these ids alone."""

    name: ClassVar[str] = "keep-rows"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(self, inputs: Mapping[str, Path], settings: KeepSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl

        wanted = set(settings.ids)
        kept = [row for row in read_jsonl(inputs["rows"] / "pool.jsonl") if row["id"] in wanted]
        _write(context.out, inputs["rows"], kept)
        return {"rows": len(kept)}


class MeasureStudent:
    """`model` and `data` (its validation rows) → `figures.json`, the task's figures of the answers that it writes.

    Nothing is timed, so it needs no process of its own as `Score` does.
    """

    name: ClassVar[str] = "measure-student"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "rouge-score", "sacrebleu")

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer
        from slmops.select.doubt import BATCH
        from slmops.tasks import metrics, task_of
        from slmops.teach.label import label_pool

        task, rows = task_of(inputs["data"]), read_jsonl(inputs["data"] / "validation.jsonl")
        model = inputs["model"] / "model"
        answers = label_pool(
            load_engine("transformers", model, gpu=True),
            Tokenizer.load(model),
            task,
            rows,
            batch=BATCH,
            top_logits=0,
            work=context.work / "answers",
            progress=context.progress,
            title="the student answers the validation rows",
        )
        pairs = zip(rows, answers, strict=True)
        figures = metrics(task, [task.judge(row["output"], task.parse(answer.text)) for row, answer in pairs])
        (context.out / FIGURES).write_text(json.dumps(figures) + "\n", encoding="utf-8")
        return figures


def _write(out: Path, of: Path, rows: Sequence[Row]) -> None:
    """`rows` in place of the pool of the artifact `of`, with what else is to be known to ask a teacher."""
    from slmops.data.read import write_jsonl
    from slmops.teach.paying import ASKED

    for name in ("task.json", ASKED):
        if (of / name).exists():
            shutil.copyfile(of / name, out / name)
    write_jsonl(out / "pool.jsonl", rows)
