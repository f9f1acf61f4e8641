"""Which teacher answers which row, and which rows are refused because none does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.errors import BadInput
from slmops.tasks import Classification
from slmops.teach.routing import Routes, by_field, by_label
from tests.teach.test_combine import answer

TASK = Classification(("refund", "other"), None, 8)


def pool(folder: Path, *values: object) -> Path:
    """A pool whose rows come from sources; None for a row without one."""
    rows = [{"input": f"text {i}"} | ({} if value is None else {"source": value}) for i, value in enumerate(values)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pool.jsonl"


def routes(otherwise: int | None = None, **to: int) -> Routes:
    return Routes(by="source", routes=to, otherwise=otherwise)


def test_a_row_goes_where_its_field_says(tmp_path):
    rows = pool(tmp_path, "mail", "chat", 7, True, None)
    found = by_field(rows, routes(3, mail=1, chat=2, **{"7": 1, "true": 2}), input="input", kind="classification")
    assert list(found.values()) == [1, 2, 1, 2, 3]
    assert list(found) == [f"pool-{n}" for n in range(1, 6)]


def test_rows_that_no_route_takes_are_named_with_their_lines(tmp_path):
    rows = pool(tmp_path, "mail", "fax", None)
    with pytest.raises(BadInput) as error:
        by_field(rows, routes(mail=1), input="input", kind="classification")
    assert str(error.value).splitlines()[1:] == [f"{rows}:2: `source` is 'fax'", f"{rows}:3: no `source`"]
    assert "otherwise" in (error.value.hint or "")


def test_of_many_such_rows_the_first_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"and 2 more$"):
        by_field(pool(tmp_path, *["fax"] * 12), routes(mail=1), input="input", kind="classification")


def test_a_row_goes_where_the_first_teachers_answer_says():
    rows = [{"id": id, "input": "hello"} for id in "abc"]
    answers = [answer("refund", id="a"), answer("other", id="b")]
    to = Routes(by="label", routes={"refund": 2}, otherwise=1)
    # The first teacher has no answer to c.
    assert by_label(rows, answers, TASK, to) == {"a": 2, "b": 1, "c": 1}
    assert by_label(rows, answers, TASK, to.model_copy(update={"otherwise": None})) == {"a": 2}
