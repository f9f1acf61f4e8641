"""Other values in a recipe's text, which keeps its comments, its order and its style."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from slmops.errors import SlmopsError
from slmops.recipe.document import compose, parse_yaml

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def rewritten(text: str, values: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """`text` with other values at dotted names; a key that it lacks is written behind those beside it.

    Args:
        text: a YAML mapping.
        wanted: what the text is to say then.

    Raises:
        SlmopsError: it does not say that.
    """
    for name, value in values.items():
        text = _with(text, name.split("."), value)
    if parse_yaml(text, "the recipe").value != wanted:
        raise SlmopsError(
            f"{', '.join(values)} cannot be written into the recipe's text",
            hint="set them by hand: --set " + " --set ".join(f"{name}={written(v)}" for name, v in values.items()),
        )
    return text


def written(value: Any) -> str:
    """A value as YAML on one line."""
    return json.dumps(value, ensure_ascii=False)


def _with(text: str, names: Sequence[str], value: Any) -> str:
    node, depth = compose(text), 0
    while (inner := _below(node, names[depth])) is not None:
        node, depth = inner, depth + 1
        if depth == len(names):
            return _replaced(text, node, written(value))
    missing, said = names[depth:], written(value)
    for name in reversed(missing[1:]):
        said = f"{{{_key(name)}: {said}}}"
    entry = f"{_key(missing[0])}: {said}"
    if not isinstance(node, yaml.MappingNode):
        return _replaced(text, node, f"{{{entry}}}")
    if not node.value:
        return _replaced(text, node, f"{{{entry}}}")
    end = _end(node.value[-1][1], text)
    if node.flow_style:
        return f"{text[:end]}, {entry}{text[end:]}"
    line = text.find("\n", end)
    line = len(text) if line < 0 else line
    return f"{text[:line]}\n{' ' * node.value[0][0].start_mark.column}{entry}{text[line:]}"


def _below(node: yaml.Node, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and name.isdecimal() and int(name) < len(node.value):
        return node.value[int(name)]  # type: ignore[no-any-return]
    if isinstance(node, yaml.MappingNode):
        return next((inner for key, inner in node.value if key.value == name), None)
    return None


def _replaced(text: str, node: yaml.Node, said: str) -> str:
    start, end = node.start_mark.index, _end(node, text)
    if start == end:  # nothing stands behind the colon
        said = f" {said}"
    return text[:start] + said + text[end:]


def _end(node: yaml.Node, text: str) -> int:
    """Where what is written of a node ends; PyYAML has a block end where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end: int = node.end_mark.index
    return max(len(text[:end].rstrip()), node.start_mark.index)


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else written(name)
