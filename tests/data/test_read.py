"""Rows from files: every broken one is named with its file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.formats import MAX_LINE_BYTES
from slmops.data.read import read_jsonl, read_rows, write_jsonl
from slmops.errors import BadInput

ROWS = [
    {"id": "a", "input": "where is it?", "output": {"intent": "status"}},
    {"id": "7", "input": "größer\nals 5 € 🙂", "output": {"intent": "other", "amount": "5 €"}},
]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(folder: Path) -> Path:
    return written(folder, "rows.jsonl", "\n\n".join(json.dumps(row) for row in ROWS) + "\n")


def csv(folder: Path) -> Path:
    lines = ["id,input,output", 'a,where is it?,"{""intent"": ""status""}"']
    lines.append('7,"größer\nals 5 € 🙂","{""intent"": ""other"", ""amount"": ""5 €""}"')
    return written(folder, "rows.csv", b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")


def parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("write", [jsonl, csv, parquet])
def test_every_format_holds_the_same_rows(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    rows = [row for _, row in read_rows(write(tmp_path), "train")]
    for row in rows:
        if isinstance(row["output"], str):  # a CSV cell is a text
            row["output"] = json.loads(row["output"])
    assert rows == ROWS


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    assert [place for place, _ in read_rows(jsonl(tmp_path), "train")] == [
        f"{tmp_path}/rows.jsonl:1",
        f"{tmp_path}/rows.jsonl:3",
    ]
    path = written(tmp_path, "x.csv", 'input,output\n"two\nlines",a\n\nnext,b\n')
    assert [place for place, _ in read_rows(path, "train")] == [f"{path}:2", f"{path}:5"]


def test_columns_can_have_other_names_and_answers_of_a_pool_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "text,label,note\nhello,greeting,\n")
    assert [row for _, row in read_rows(path, "test", input="text", output="label")] == [
        {"id": "test-1", "input": "hello", "output": "greeting"}
    ]
    assert [row for _, row in read_rows(path, "pool", input="text", output=None)] == [
        {"id": "pool-1", "input": "hello"}
    ]


def test_a_further_column_comes_with_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", '{"input": "a", "source": 7}\n{"input": "b"}\n')
    rows = [row for _, row in read_rows(path, "pool", output=None, also="source")]
    assert rows == [{"id": "pool-1", "input": "a", "source": 7}, {"id": "pool-2", "input": "b", "source": None}]
    assert next(row for _, row in read_rows(path, "pool", output=None, also="id"))["id"] == "pool-1"


BROKEN_LINES = [
    ("{", "not JSON"),
    ("nonsense", "not JSON"),
    ("[1]", "not a JSON object: [1]"),
    ('{"input": "a", "input": "b"}', "'input' is given twice"),
    ('{"input": NaN}', "NaN is not a JSON number"),
    ('{"input": "\\ud800", "output": 1}', "half of a surrogate pair"),
    ('{"text": "a"}', "no `input`; there is `text`"),
    ('{"input": null, "output": 1}', "no `input`"),
    ('{"input": "a"}', "no `output`; there is `input`"),
    ('{"input": 5, "output": 1}', "`input` is 5; it must be a text"),
    ('{"input": "  ", "output": 1}', "`input` is empty"),
    ('{"id": "ok", "input": "b", "output": 1}', "id 'ok' was given before, at"),
    ('{"id": [], "input": "b", "output": 1}', "id is []; it must be a text or a whole number"),
    ('{"id": "", "input": "b", "output": 1}', "id is ''"),
    ('{"id": true, "input": "b", "output": 1}', "id is True"),
    ("[" * 100_000, "nested too deeply"),
    ('{"input": "' + "x" * MAX_LINE_BYTES + '"}', "longer than 1,000,000 bytes"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN_LINES, ids=[message for _, message in BROKEN_LINES])
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, "x.jsonl", '{"id": "ok", "input": "a", "output": 1}\n' + line + "\n")
    with pytest.raises(BadInput) as error:
        list(read_rows(path, "train"))
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "has no rows"),
        ("x.jsonl", b"\n  \n", "has no rows"),
        ("x.csv", b"", "has no rows"),
        ("x.csv", b"input,output\n", "has no rows"),
        ("x.jsonl", b'{"input": "a", "output": 1}\n{"input": "\xff"}\n', "x.jsonl:2: not UTF-8 at byte 12"),
        ("x.csv", b"input,output\na,1\n\xff,2\n", "x.csv:3: not UTF-8 at byte 1"),
        ("x.csv", b"input,output\na,1\nb\n", "x.csv:3: 1 cells, but the header has 2 columns"),
        ("x.csv", b"input,output\na,1,2\n", "x.csv:2: 3 cells, but the header has 2 columns"),
        ("x.csv", b"input,input\na,1\n", "x.csv:1: column 'input' is given twice"),
        ("x.csv", b'input,output\n"a,1\n', "not CSV"),
        ("x.csv", b"input,output\na,\n", "x.csv:2: no `output`; there is `input`"),
        ("x.csv", b"text,output\na,1\n", "x.csv:2: no `input`; there is `text`, `output`"),
        ("x.parquet", b"", "not Parquet"),
        ("x.parquet", b"PAR1 nothing PAR1", "not Parquet"),
        ("x.xlsx", b"", "unknown kind of file '.xlsx'"),
        ("x", b"", "unknown kind of file '(no suffix)'"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(BadInput) as error:
        list(read_rows(path, "train"))
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"{name}.*No such file"):
        list(read_rows(tmp_path / name, "train"))


def test_parquet_cells_of_a_wrong_type_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"input": ["a", None], "output": [1, 2]}), path)
    with pytest.raises(BadInput, match="row 2: no `input`"):
        list(read_rows(path, "train"))
    pq.write_table(pa.table({"input": [b"a"], "output": [1]}), path)
    with pytest.raises(BadInput, match=r"row 1: `input` is .* must be a text"):
        list(read_rows(path, "train"))


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", '{"input": "a", "output": 1}\nbroken\n')
    rows = read_rows(path, "train")
    assert next(rows)[1]["input"] == "a"
    with pytest.raises(BadInput, match=":2: not JSON"):
        next(rows)


ANSWERS: st.SearchStrategy[Any] = st.text() | st.dictionaries(st.text(), st.text() | st.integers() | st.none())


@given(st.lists(st.fixed_dictionaries({"id": st.text(min_size=1), "input": st.text(), "output": ANSWERS})))
def test_written_rows_are_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    assert write_jsonl(path, rows) == len(rows)
    assert read_jsonl(path) == rows
