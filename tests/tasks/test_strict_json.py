"""JSON by the letter."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.tasks.strict_json import loads, members

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans())
def test_reads_all_json(value: Any, ascii_only: bool) -> None:
    assert loads(f" {json.dumps(value, ensure_ascii=ascii_only)}\n") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{} {}", "not JSON: Extra data at character 4"),
        ('{"a":1,}', "not JSON"),
        ("{'a':1}", "not JSON"),
        ('{"a":1,"b":{"c":1,"c":2}}', "key 'c' is given twice"),
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e400", "1e400 is too large a number"),
        ("9" * 5000, "Exceeds the limit"),
        (r'"\ud83d"', "half of a surrogate pair"),
        (r'{"\udc00":1}', "half of a surrogate pair"),
        ('"\n"', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_refuses_the_rest(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        loads(text)


@given(st.text('{}[]",:0aeE.-\\u \n'))
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    try:
        value = loads(text)
    except ValueError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(st.dictionaries(st.text(), VALUES), st.sampled_from([None, 2]))
def test_members_are_found_where_they_stand(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    found = {name: text[start:end] for name, (start, end) in members(text).items()}
    assert list(found) == list(value)
    assert {name: loads(f"{{{part}}}")[name] for name, part in found.items()} == value


@pytest.mark.parametrize("text", ["[1]", "1", '{"a": 1', '{"a": 1, "a": 2}'])
def test_what_is_no_object_has_no_members(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|twice"):
        members(text)
