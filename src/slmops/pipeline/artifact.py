"""What a finished stage leaves: files, figures, and the record of where they came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from slmops.pipeline.keys import Provenance

Figure = int | float | str
"""One headline figure of an artifact."""


class FileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int = Field(ge=0, description="Bytes.")


class Manifest(BaseModel):
    """What an artifact is and where it came from; its presence means that the artifact is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    key: str
    provenance: Provenance
    files: dict[str, FileRecord]
    metrics: dict[str, Figure]
    created: str = Field(description="ISO 8601, UTC.")
    seconds: float = Field(ge=0, description="Time it took to make.")


@dataclass(frozen=True)
class Artifact:
    """A whole result. `path` is the folder with its files."""

    key: str
    path: Path
    manifest: Manifest


def plain(figure: Figure) -> Figure:
    """A figure that JSON can hold: numpy numbers become Python's, and one that is not finite is kept as text."""
    if isinstance(figure, str):
        return figure
    number = figure if isinstance(figure, int) else float(figure)
    return number if math.isfinite(number) else str(number)
