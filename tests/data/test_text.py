"""Texts out of files: where one ends, and which files and rows are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.text import read_texts
from slmops.errors import BadInput

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=5)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@given(texts=TEXTS, gap=st.integers(1, 3), end=st.sampled_from(["", "\n", "\n\n  \n"]))
def test_blank_lines_part_plain_texts_and_nothing_else_does(tmp_path_factory, texts, gap, end):
    path = written(tmp_path_factory.mktemp("text"), "a.txt", ("\n" + "\n" * gap).join(texts) + end)
    assert list(read_texts(path, "text")) == texts


def test_a_row_is_a_text_whatever_stands_in_it(tmp_path):
    rows = [{"body": "one\n\nstill one"}, {"body": " "}, {"body": "two", "text": "not this"}]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_texts(path, "body")) == ["one\n\nstill one", "two"]
    assert list(read_texts(written(tmp_path, "a.csv", "text,n\nhm,1\n"), "text")) == ["hm"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "", "a.txt: holds no text"),
        ("a.md", "\n \n\t\n", "a.md: holds no text"),
        ("a.jsonl", '{"text": ""}\n', "a.jsonl: holds no text"),
        ("a.jsonl", '{"text": "a"}\n{"body": "b"}\n', "a.jsonl:2: no `text`; there is `body`"),
        ("a.jsonl", '{"text": 3}\n', "a.jsonl:1: `text` is no text"),
        ("a.txt", b"good\nb\xffd\n", "a.txt:2: not UTF-8"),
        ("a.pdf", "x", "a.pdf: unknown kind of file '.pdf'"),
    ],
)
def test_a_file_without_text_is_told_with_its_place(tmp_path, name, content, said):
    with pytest.raises(BadInput) as error:
        list(read_texts(written(tmp_path, name, content), "text"))
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BadInput, match=r"a\.txt: No such file"):
        list(read_texts(tmp_path / "a.txt", "text"))
