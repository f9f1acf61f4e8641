"""YAML by the core rules of version 1.2, with lines, and without anything that could surprise."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.recipe.document import dotted, parse_yaml

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc :-#")
)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
)


@given(DATA)
def test_reads_what_pyyaml_writes(data: object) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, _data: object) -> bool:
            return True

    assert parse_yaml(yaml.dump(data, Dumper=Plain), "x").value == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1e-5", 1e-5),
        ("3.0e-4", 3.0e-4),
        (".5", 0.5),
        ("-12", -12),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1.0.0", "1.0.0"),
        ("'7'", "7"),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    parsed = parse_yaml(text, "x").value
    assert parsed == value
    assert type(parsed) is type(value)


def test_remembers_the_line_of_every_key_and_item() -> None:
    document = parse_yaml("a: 1\nb:\n  - x\n  - c: 2\n    on: train\n", "x")
    assert document.value == {"a": 1, "b": ["x", {"c": 2, "on": "train"}]}
    lines = {dotted(path): line for path, line in document.lines.items()}
    assert lines == {"": 1, "a": 1, "b": 2, "b.0": 3, "b.1": 4, "b.1.c": 4, "b.1.on": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "x:3: a is given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2", "x:3: a.b is given twice, first in line 2"),
        ("a: &n [1]\nb: *n", "aliases"),
        ("a: &n [*n]", "aliases"),
        ("a: 1\nb: [", "x:2: not valid YAML"),
        ("a: b: c", "x:1: not valid YAML"),
        ("a: 1\n---\nb: 2", "x:2: not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("1: 2", "x:1: `1` cannot be a key"),
        ("[1]: 2", "x:1: a list or mapping cannot be a key"),
        ("a: !!python/object/apply:os.system [ls]", "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!timestamp soon", "not allowed"),
        ("a: !!int seven", "not valid YAML"),
        ("a: !!bool maybe", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_yaml(text, "x")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadInput):
        parse_yaml(text, "x")
