"""What an evaluation without a recipe is given: the task, and the rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from slmops.data.check import answered, task_for
from slmops.data.formats import Placed
from slmops.data.read import read_rows
from slmops.errors import BadInput
from slmops.evaluate.subjects import Subject, common_task
from slmops.recipe.document import parse_yaml
from slmops.recipe.evaluate import Price
from slmops.recipe.load import load_recipe
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.task import TaskSettings
from slmops.tasks import Row, Task, from_description, input_reader, read_schema

_FLAGS = {"schema": "--schema", "label": "--label", "instruction": "--instruction"}


def read_given(
    data: Path,
    train: Path | None,
    settings: Mapping[str, Any],
    subjects: Sequence[Subject],
    *,
    columns: tuple[str, str],
    limit: int | None,
) -> tuple[Task, list[Row], list[Row]]:
    """The task, the rows to evaluate on and those to fit the floor on.

    Args:
        settings: a recipe's `task`, as far as it was given; without `kind` it is the task of the bundles.
        columns: with the text and with the answer.
        limit: how many rows of `data` are taken, from its beginning; None for all.

    Raises:
        BadInput: nothing says what the task is, or a file has no rows or rows without an answer that the task takes.
    """
    if "kind" not in settings and settings:
        raise BadInput(f"{_FLAGS[min(settings)]} needs --task", hint="a bundle brings its own task with it")
    made = task_settings(settings) if settings else None
    described = {} if made else common_task(subjects)
    reader = input_reader(made.kind if made else described["kind"])
    said = made.instruction if made else described["instruction"]
    text, answer = columns

    def read(path: Path, side: str) -> Iterator[Placed]:
        return read_rows(path, side, input=text, output=answer, reader=reader, instruction=said)

    try:
        rows = list(islice(read(data, "test"), limit))
        known = list(read(train, "train")) if train else []
    except BadInput as error:
        raise BadInput(str(error), hint=error.hint and error.hint.replace("data.", "--")) from None
    if made:
        task = task_for(made, read_schema(settings["schema"]) if "schema" in settings else None, known or rows)
    else:
        task = from_description(described)
    return task, answered(rows, task), answered(known, task)


def read_task(file: Path, rows: Path | None) -> tuple[Task, list[Row]]:
    """A task out of a YAML file that holds what stands under `task` in a recipe, and its rows with answers.

    A schema is meant from the file's own folder; labels that are not told are those of the rows.

    Raises:
        BadInput: it is no such file, or the rows have no answers that the task takes.
    """
    try:
        given = parse_yaml(file.read_text(encoding="utf-8"), str(file)).value
        settings: TaskSettings = TypeAdapter(TaskSettings).validate_python(given)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the task {file} cannot be read: {error}") from None
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise BadInput(f"{file}: {place}: {detail['msg']}", hint="write what stands under `task` in a recipe") from None
    schema = read_schema(file.parent / given["schema"]) if "schema" in given else None
    found = list(read_rows(rows, "test", reader=input_reader(settings.kind))) if rows else []
    task = task_for(settings, schema, found)
    return task, answered(found, task)


def task_settings(given: Mapping[str, Any]) -> TaskSettings:
    """A recipe's `task`, as flags of the command line gave it.

    Raises:
        BadInput: its kind does not exist, or does not take or lacks one of them.
    """
    try:
        made: TaskSettings = TypeAdapter(TaskSettings).validate_python(dict(given))
        return made
    except ValidationError as error:
        detail = error.errors()[0]
        place = [str(part) for part in detail["loc"] if part != given["kind"]]
        if detail["type"] == "extra_forbidden":
            raise BadInput(f"a task of kind {given['kind']} takes no {_FLAGS[place[-1]]}") from None
        if detail["type"] == "missing":
            raise BadInput(f"a task of kind {given['kind']} needs {_FLAGS.get(place[-1], place[-1])}") from None
        where = _FLAGS.get(place[-1], place[-1]) if place else "--task"
        raise BadInput(f"{where}: {detail['msg']}") from None


def read_prices(given: Sequence[str], subjects: Sequence[Subject]) -> dict[str, Price]:
    """Prices by subject out of `NAME=READ,WRITTEN`, in USD per million tokens.

    Raises:
        BadInput: it is no such text, or nothing of that name is evaluated.
    """
    prices, names = {}, [subject.name for subject in subjects]
    for text in given:
        match = re.fullmatch(r"([\w.-]+)=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", text)
        if match is None:
            raise BadInput(f"--price {text} cannot be read", hint="as in --price gpt=2.5,10 (read,written)")
        name, read, written = match.groups()
        if name not in names:
            raise BadInput(f"--price {text}: nothing of that name is evaluated", hint=f"names: {', '.join(names)}")
        prices[name] = Price(input_usd=float(read), output_usd=float(written))
    return prices


def read_keys(given: Sequence[str]) -> dict[str, str]:
    """Keys by host out of `VARIABLE` or `HOST=VARIABLE`; the host "" stands for all.

    Raises:
        BadInput: a variable is not set.
    """
    keys = {}
    for text in given:
        host, _, variable = text.rpartition("=")
        if not os.environ.get(variable):
            raise BadInput(f"the environment variable {variable} is not set", hint=f"export {variable}=…")
        keys[host] = os.environ[variable]
    return keys


def read_privacy(recipe: Path | None, redact: bool) -> PrivacySettings:
    """What may leave for an endpoint, and what is taken out of it: as a recipe says, else by default.

    Raises:
        BadInput: both a recipe and `redact` are given, or the recipe cannot be read.
    """
    if recipe is None:
        return PrivacySettings() if redact else PrivacySettings(redact=[])
    if not redact:
        raise BadInput("--privacy and --no-redact exclude each other", hint="the recipe says `privacy.redact: []`")
    return load_recipe(recipe).privacy
