"""Which of several teachers answers which rows of the pool."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.data.read import read_rows
from slmops.errors import BadInput
from slmops.recipe.data import Column
from slmops.recipe.settings import Settings
from slmops.tasks import Row, Task, input_reader

if TYPE_CHECKING:
    from slmops.teach.answers import Answer

_SHOWN = 10


class Routes(Settings):
    """The teacher of each value; teachers are numbered from 1, in the order of the recipe."""

    by: str
    routes: dict[str, int]
    otherwise: int | None

    def teacher(self, value: Any) -> int | None:
        """The teacher of rows with this value; None where there is none.

        A value that is no text counts as JSON writes it: `true`, `7`.
        """
        key = value if isinstance(value, str) else json.dumps(value, default=str)
        return self.otherwise if value is None else self.routes.get(key, self.otherwise)


def by_field(pool: Path, routes: Routes, *, input: Column, kind: str, instruction: str | None = None) -> dict[str, int]:
    """The teacher of each row of a pool file, by the row's id.

    Args:
        input: column with the text, as in `data.input`.
        kind, instruction: of the task, which knows what an input may be made of.

    Raises:
        BadInput: rows without a teacher, with their places; or see `read_rows`.
    """
    teachers: dict[str, int] = {}
    lost = []
    reader = input_reader(kind)
    rows = read_rows(pool, "pool", input=input, output=None, also=routes.by, reader=reader, instruction=instruction)
    for place, row in rows:
        value = row[routes.by]
        teacher = routes.teacher(value)
        if teacher is None:
            lost.append(f"{place}: " + (f"no `{routes.by}`" if value is None else f"`{routes.by}` is {value!r}"))
        else:
            teachers[row["id"]] = teacher
    if lost:
        more = [f"and {len(lost) - _SHOWN} more"] if len(lost) > _SHOWN else []
        raise BadInput(
            "\n".join(["rows of the pool that teach.combine routes to no teacher:", *lost[:_SHOWN], *more]),
            hint=f"add routes to {', '.join(routes.routes)}, or `otherwise`: the teacher of all other rows",
        )
    return teachers


def by_label(rows: Iterable[Row], answers: Iterable[Answer], task: Task, routes: Routes) -> dict[str, int]:
    """The teacher of each row of the pool by what the first teacher answers; for others `routes.otherwise`, if any.

    Args:
        answers: of the first teacher; all of them have the form of the task.
    """
    labels = {answer.id: task.label(task.parse(answer.text)) for answer in answers}
    found = {row["id"]: routes.teacher(labels.get(row["id"])) for row in rows}
    return {id: teacher for id, teacher in found.items() if teacher is not None}
