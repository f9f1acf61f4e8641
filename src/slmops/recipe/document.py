"""YAML as plain data that remembers the line each key stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from slmops.errors import BadInput

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top, e.g. `("teachers", 0, "fit", "epochs")`."""


class _Loader(yaml.SafeLoader):
    """Plain data by the core rules of YAML 1.2.

    PyYAML's own rules are those of YAML 1.1, where `on` is a truth value, `12:30` a number and `1e-5` a text.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  PyYAML's own protocol


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "bool", "null", "int", "float")}


@dataclass(frozen=True)
class Document:
    """A value and the line, counted from 1, of everything in it that has a key or a list position."""

    value: Any
    lines: dict[KeyPath, int]


def parse_yaml(text: str, source: str) -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        source: what errors call it, e.g. the file's name.

    Raises:
        BadInput: not YAML, a key given twice or that is no text, or an alias (a few of them can stand for any
            amount of data).
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None, {})
        lines: dict[KeyPath, int] = {}
        _walk(node, (), lines, source, set())
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{source}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise BadInput(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BadInput(f"{source}: nested too deeply") from None


def compose(text: str) -> yaml.Node:
    """The nodes of one YAML document that `parse_yaml` has read, with the place in the text of each."""
    node = _Loader(text).get_single_node()
    assert node is not None  # noqa: S101 - it has been read
    return node


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], source: str, seen: set[int]) -> None:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in seen:
        raise BadInput(f"{source}:{line}: aliases (`*name`) are not allowed", hint="write the values out")
    seen.add(id(node))
    if node.tag not in _TAGS:
        raise BadInput(f"{source}:{line}: the tag {node.tag} is not allowed", hint="write a plain value")
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _walk(item, (*path, position), lines, source, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = f"{source}:{key.start_mark.line + 1}"
            if key.tag != "tag:yaml.org,2002:str":
                given = f"`{key.value}`" if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise BadInput(f"{place}: {given} cannot be a key", hint="keys are texts; put it in quotes")
            if (inner := (*path, key.value)) in lines:
                raise BadInput(f"{place}: {dotted(inner)} is given twice, first in line {lines[inner]}")
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines, source, seen)


def dotted(path: KeyPath) -> str:
    """`("teachers", 0, "fit")` as `teachers.0.fit`."""
    return ".".join(map(str, path))
