"""The files that a labelling head is kept in, beside the model it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.errors import BadInput

TAGS, WEIGHTS = "tags.json", "tags.safetensors"

_FORMAT = 2
"""What is read off where. In format 1 the label of a whole message was read off its last token alone."""


def is_tagger(folder: Path) -> bool:
    """Whether the model in `folder` labels tokens instead of writing them."""
    return (folder / TAGS).is_file()


def write_tags(folder: Path, tags: Mapping[str, Any]) -> None:
    """Write what the labels mean."""
    (folder / TAGS).write_text(json.dumps({"format": _FORMAT, **tags}) + "\n", encoding="utf-8")


def read_tags(folder: Path) -> dict[str, Any]:
    """What `write_tags` wrote.

    Raises:
        BadInput: the head was trained to be read in another way.
    """
    tags: dict[str, Any] = json.loads((folder / TAGS).read_text(encoding="utf-8"))
    if tags.get("format") != _FORMAT:
        raise BadInput(
            f"the labelling head in {folder} has format {tags.get('format', 1)}, and this version reads {_FORMAT}",
            hint="run the recipe again, or use the version of slmops that made it",
        )
    return tags
