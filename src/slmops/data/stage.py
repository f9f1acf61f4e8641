"""The first stage of a run: rows from files or from the sample, checked, screened and parted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from slmops.data.augment import augmented
from slmops.data.check import Screen, answered, check_labels, task_for, text_digest
from slmops.data.dropped import TRAIN
from slmops.data.formats import Placed
from slmops.data.read import read_jsonl, read_rows, write_jsonl
from slmops.data.regression import checked, read_regression
from slmops.data.screen import Resemblance
from slmops.data.split import split, split_groups
from slmops.errors import BadInput
from slmops.pipeline.stage import Context, Node
from slmops.recipe.data import Augment, Column, SampleData, ScreenSettings, Split
from slmops.recipe.models import Recipe
from slmops.recipe.settings import Settings
from slmops.recipe.task import ClassificationTask, ExtractionTask, TaskSettings
from slmops.samples.tickets import tickets
from slmops.tasks import Row, Task, from_description, input_reader, make_task, read_schema


class PrepareDataSettings(Settings):
    """The recipe's `task` and `data` without paths: files come as inputs, so that only their content counts."""

    task: TaskSettings
    input: Column
    output: Column
    split: Split
    sample: SampleData | None
    screen: ScreenSettings = Field(default_factory=ScreenSettings)
    augment: Augment = Field(default_factory=Augment)
    held_out: list[str] = Field(
        [], description="Digests of texts of train or pool that stand in the regression suite: not to be trained on."
    )


class PrepareData:
    """`train`, `test` and perhaps `pool` and `schema` → rows that every later stage can trust.

    Writes `train.jsonl`, `validation.jsonl`, `pool.jsonl`, `test.jsonl`, `dropped.jsonl` (with reasons), `task.json`
    (the task's description) and `data.json` (counts and label balance).
    """

    name: ClassVar[str] = "data"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def run(
        self, inputs: Mapping[str, Path], settings: PrepareDataSettings, context: Context
    ) -> Mapping[str, float | str]:
        sides = _sides(inputs, settings, context)
        schema = read_schema(inputs["schema"]) if "schema" in inputs else None
        train_rows, test_rows = list(sides["train"]), list(sides["test"])
        task = task_for(settings.task, schema, train_rows)
        test = answered(test_rows, task)
        screen = Screen()
        screen.remember(test, "test")
        screen.remember_digests(settings.held_out, "the regression suite")
        labelled = list(screen.sift(answered(train_rows, task), TRAIN))
        pool = list(screen.sift((row for _, row in sides["pool"]), "pool"))
        with context.progress.task("compare rows", None, ""):
            near = Resemblance([*test, *labelled, *pool], settings.screen, settings.task.kind)
            labelled = near.uncontaminated(labelled, TRAIN, {"test": test})
            check_labels(labelled, test, task)
            train, validation = _parted(labelled, task, settings.split, context.seed)
            train = near.uncontaminated(train, TRAIN, {"validation": validation})
            check_labels(train, test, task)
            pool = near.uncontaminated(pool, "pool", {"test": test, "validation": validation})
            pool = near.single(pool, "pool", {TRAIN: train})
        copies = augmented(train, [*validation, *test], settings.task.kind, settings.augment, context.seed)
        train += copies
        for side, rows in (("train", train), ("validation", validation), ("test", test), ("pool", pool)):
            write_jsonl(context.out / f"{side}.jsonl", rows)
        lost = [*screen.dropped, *near.dropped]
        write_jsonl(context.out / "dropped.jsonl", lost)
        _write_json(context.out / "task.json", task.describe())
        counts = {"train": len(train), "validation": len(validation), "pool": len(pool), "test": len(test)}
        dropped = Counter(f"{row['side']}: {row['reason']}" for row in lost)
        for reason, count in dropped.items():
            context.progress.note(f"dropped {count:,} rows of {reason}")
        balance = {
            "train": _balance(train, task),
            "validation": _balance(validation, task),
            "test": _balance(test, task),
        }
        added = Counter(f"{TRAIN}: {row['id'].rpartition('~')[2]}" for row in copies)
        told = {"rows": counts, "dropped": dropped, "augmented": added, "labels": balance}
        _write_json(context.out / "data.json", told)
        figures = {**{f"{side}_rows": count for side, count in counts.items()}, "dropped_rows": len(lost)}
        return figures | ({"augmented_rows": len(copies)} if copies else {})


def prepare_data_node(recipe: Recipe) -> Node:
    """The node `data` of a run.

    Raises:
        BadInput: the task's schema cannot be read or is not supported, or its labels are no set.
    """
    data, task = recipe.data, recipe.task
    given = {"train": data.train, "pool": data.pool, "test": data.test}
    sources = {side: path for side, path in given.items() if path}
    if data.sample:
        # Rows that are made are as much an input as rows that are read.
        sources |= {name: Path(str(files("slmops.samples") / name)) for name in ("tickets.py", "tickets.yaml")}
    if not isinstance(task, ClassificationTask) or task.labels is not None:
        make_task(task)  # what is wrong with the task is said before anything runs
    if isinstance(task, ExtractionTask):
        sources["schema"] = task.json_schema
        task = task.model_copy(update={"json_schema": Path("schema")})
    settings = PrepareDataSettings(
        task=task,
        input=data.input,
        output=data.output,
        split=data.split,
        sample=data.sample,
        screen=data.screen,
        augment=data.augment,
        held_out=_held_out(recipe, suite) if (suite := recipe.evaluate.regression) else [],
    )
    return Node("data", PrepareData, settings, sources=sources)


def pool_rows(recipe: Recipe) -> Iterator[Row]:
    """The rows of the pool as they are given, before they are screened.

    Raises:
        BadInput: see `read_rows`.
    """
    if recipe.data.sample:
        yield from (row for _, row in _sample(recipe.data.sample, recipe.seed)["pool"])
    elif recipe.data.pool:
        reader = input_reader(recipe.task.kind)
        said = recipe.task.instruction
        rows = read_rows(
            recipe.data.pool, "pool", input=recipe.data.input, output=None, reader=reader, instruction=said
        )
        yield from (row for _, row in rows)


def _held_out(recipe: Recipe, suite: Path) -> list[str]:
    """Digests of the regression rows that training would see.

    Only those enter the settings, and so the key: a row that training never saw can be added to the suite without
    anything being trained again.

    Raises:
        BadInput: see `read_regression` and `read_rows`.
    """
    digests = {text_digest(row["input"]) for _, row in read_regression(suite, recipe.task.kind)}
    if recipe.data.sample:
        sides = _sample(recipe.data.sample, recipe.seed)
        seen = (row for side in ("train", "pool") for _, row in sides[side])
    else:
        given = [(path, side) for side in ("train", "pool") if (path := getattr(recipe.data, side))]
        reader, said = input_reader(recipe.task.kind), recipe.task.instruction
        read = (
            read_rows(path, side, input=recipe.data.input, output=None, reader=reader, instruction=said)
            for path, side in given
        )
        seen = (row for rows in read for _, row in rows)
    return sorted(digests & {text_digest(row["input"]) for row in seen})


class PrepareRegression:
    """`suite` (the file) and `data` → the rows of the regression suite as rows to be answered.

    Writes `test.jsonl` and `task.json`, so that a model is measured on them as on any other rows.
    """

    name: ClassVar[str] = "regression"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        description = json.loads((inputs["data"] / "task.json").read_text(encoding="utf-8"))
        rows = checked(read_regression(inputs["suite"], description["kind"]), from_description(description))
        _write_json(context.out / "task.json", description)
        return {"rows": write_jsonl(context.out / "test.jsonl", rows)}


class PartRowsSettings(Settings):
    task: TaskSettings
    input: Column
    output: Column
    share: float = Field(gt=0, lt=1, description="Of the rows that models are measured on before they are rounded.")
    most: int | None = Field(None, description="Rows, the first ones; null takes all.")


class PartRows:
    """`rows` (a file) and perhaps `calibration` (another) and `schema` → rows to make a model small by, as `train`, and
    rows to judge it on, as `test`.

    Without `calibration` a share of the rows is taken away for it.
    """

    name: ClassVar[str] = "part-rows"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(
        self, inputs: Mapping[str, Path], settings: PartRowsSettings, context: Context
    ) -> Mapping[str, float | str]:
        reader = input_reader(settings.task.kind)

        def read(name: str) -> list[Placed]:
            said = settings.task.instruction
            rows = read_rows(
                inputs[name], name, input=settings.input, output=settings.output, reader=reader, instruction=said
            )
            return list(islice(rows, settings.most))

        placed = read("rows")
        task = task_for(settings.task, read_schema(inputs["schema"]) if "schema" in inputs else None, placed)
        rows = answered(placed, task)
        if "calibration" in inputs:
            train, test = answered(read("calibration"), task), rows
        else:
            test, train = split(rows, settings.share, context.seed)
        for side, found in (("train", train), ("validation", []), ("pool", []), ("test", test)):
            write_jsonl(context.out / f"{side}.jsonl", found)
        _write_json(context.out / "task.json", task.describe())
        return {"train_rows": len(train), "test_rows": len(test)}


class HeldOutSettings(Settings):
    side: Literal["validation", "test"]
    most: int | None = Field(None, description="Rows, the first ones; null takes all.")


class HeldOut:
    """`data` → its validation or test rows as the rows that a model is measured on."""

    name: ClassVar[str] = "held-out"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(self, inputs: Mapping[str, Path], settings: HeldOutSettings, context: Context) -> Mapping[str, float | str]:
        rows = read_jsonl(inputs["data"] / f"{settings.side}.jsonl")[: settings.most]
        shutil.copyfile(inputs["data"] / "task.json", context.out / "task.json")
        return {"rows": write_jsonl(context.out / "test.jsonl", rows)}


def _sides(inputs: Mapping[str, Path], settings: PrepareDataSettings, context: Context) -> dict[str, Iterable[Placed]]:
    """The rows of train, pool and test with their places."""
    if settings.sample:
        return _sample(settings.sample, context.seed)
    sides: dict[str, Iterable[Placed]] = {"pool": ()}
    for side in ("train", "pool", "test"):
        if side in inputs:
            output = None if side == "pool" else settings.output
            rows = read_rows(
                inputs[side],
                side,
                input=settings.input,
                output=output,
                also=settings.split.group if side == TRAIN else None,
                reader=input_reader(settings.task.kind),
                instruction=settings.task.instruction,
            )
            sides[side] = _counted(rows, side, context)
    return sides


def _sample(sample: SampleData, seed: int) -> dict[str, Iterable[Placed]]:
    made = tickets("train", sample.train + sample.pool, seed)
    pool = [{"id": row["id"], "input": row["input"]} for row in made[sample.train :]]
    sides = {"train": made[: sample.train], "pool": pool, "test": tickets(sample.held_out, sample.test, seed)}
    return {side: [(f"sample row {row['id']}", row) for row in rows] for side, rows in sides.items()}


def _counted(rows: Iterable[Placed], side: str, context: Context) -> Iterator[Placed]:
    with context.progress.task(f"read {side}", None, "rows") as bar:
        for row in rows:
            yield row
            bar.advance()


def _parted(rows: Sequence[Row], task: Task, settings: Split, seed: int) -> tuple[list[Row], list[Row]]:
    by_label = (lambda row: task.label(row["output"])) if settings.stratify else None
    if (group := settings.group) is None:
        train, validation = split(rows, settings.validation, seed, by_label)
    else:
        train, validation = split_groups(rows, settings.validation, seed, lambda row: _group(row, group), by_label)
    if not train or not validation:
        raise BadInput(
            f"{len(rows)} labelled rows are too few to keep some for validation",
            hint="add rows; with data.split.stratify each label needs two, with data.split.group two groups",
        )
    return train, validation


def _group(row: Row, column: str) -> str:
    """What stands in the column by which rows are kept together; any JSON value, as text."""
    if row[column] is None:
        raise BadInput(f"row {row['id']} has no `{column}`", hint="data.split.group names the column")
    return json.dumps(row[column], sort_keys=True)


def _balance(rows: Sequence[Row], task: Task) -> dict[str, int]:
    labels = (task.label(row["output"]) for row in rows)
    return dict(sorted(Counter(label for label in labels if label is not None).items()))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
