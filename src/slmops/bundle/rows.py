"""Asking a bundle many things: a file of rows in, one record per row out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slmops.bundle.predict import Bundle
from slmops.data.read import read_rows
from slmops.progress import Progress, Silent

_AT_ONCE = 256


def predict_rows(
    bundle: Bundle, path: Path, *, probabilities: bool = False, progress: Progress | None = None
) -> Iterator[dict[str, Any]]:
    """The prediction for every row of a JSONL, CSV or Parquet file, in order, as soon as its part of the file is done.

    Args:
        probabilities: of every label too; see `Bundle.probabilities`.

    Returns:
        Per row its `id` (made from its number where it has none), `Prediction.plain()`, and `probabilities` if wanted.

    Raises:
        BadInput: a row is broken; nothing was asked then. Or a text is too long, or the task has no labels.
    """
    rows = [row for _, row in read_rows(path, "row", output=None)]
    with (progress or Silent()).task("predict", len(rows), "rows") as task:
        for begin in range(0, len(rows), _AT_ONCE):
            part = rows[begin : begin + _AT_ONCE]
            texts = [row["input"] for row in part]
            shares = (
                [{"probabilities": one} for one in bundle.probabilities(texts)] if probabilities else [{}] * len(part)
            )
            for row, prediction, share in zip(part, bundle.predict_many(texts), shares, strict=True):
                yield {"id": row["id"], **prediction.plain(), **share}
            task.advance(len(part))
