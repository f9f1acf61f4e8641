"""The files that a labelling head is kept in, beside the model it belongs to."""

from __future__ import annotations

from pathlib import Path

TAGS, WEIGHTS = "tags.json", "tags.safetensors"


def is_tagger(folder: Path) -> bool:
    """Whether the model in `folder` labels tokens instead of writing them."""
    return (folder / TAGS).is_file()
