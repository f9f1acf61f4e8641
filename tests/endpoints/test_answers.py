"""Kept answers."""

from __future__ import annotations

import pytest

from slmops.endpoints.answers import Answers, key
from slmops.errors import SlmopsError


def test_what_is_kept_is_found_by_another(tmp_path):
    first, second = Answers(tmp_path / "home" / "answers.db"), Answers(tmp_path / "home" / "answers.db")
    first.keep({"a": {"text": "ä 🙂"}, "b": {"text": ""}})
    assert second.find(["a", "b", "c"]) == {"a": {"text": "ä 🙂"}, "b": {"text": ""}}
    second.keep({"a": {"text": "new"}})
    assert first.find(["a"]) == {"a": {"text": "new"}}
    first.close()
    second.close()


def test_keys_follow_everything_that_shapes_an_answer():
    keys = [key(who={"m": 1}, messages=["x"]), key(who={"m": 2}, messages=["x"]), key(who={"m": 1}, messages=["y"])]
    assert len(set(keys)) == 3
    assert key(a=1, b={"c": 2, "d": 3}) == key(b={"d": 3, "c": 2}, a=1)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "answers.db").write_bytes(b"no database, but long enough to be looked at as if it were one" * 20)
    with pytest.raises(SlmopsError, match="is damaged"):
        Answers(tmp_path / "answers.db")
