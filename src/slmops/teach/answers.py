"""What a teacher wrote for the pool, kept with the probabilities it gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from slmops.data.read import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Answer:
    """One row's answer.

    Attributes:
        tokens: int64 [n], in the teacher's vocabulary; the end token last, unless the answer was cut off.
        top_ids: int32 [n, k], most likely tokens at each position; k may be 0.
        top_log_probs: float32 [n, k], their log-probabilities under the full softmax.
    """

    id: str
    input: str
    text: str
    tokens: npt.NDArray[np.int64]
    top_ids: npt.NDArray[np.int32]
    top_log_probs: npt.NDArray[np.float32]


def save_answers(folder: Path, answers: Sequence[Answer]) -> None:
    """Write `answers.jsonl` (readable) and `answers.safetensors` (tokens and probabilities) to `folder`.

    The table of texts is written last, under a temporary name first: where it stands, both are whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "tokens": _joined([answer.tokens for answer in answers], np.int64),
        "lengths": np.array([len(answer.tokens) for answer in answers], dtype=np.int64),
        "top_ids": _joined([answer.top_ids for answer in answers], np.int32),
        "top_log_probs": _joined([answer.top_log_probs for answer in answers], np.float32),
    }
    save_file(arrays, folder / "answers.safetensors")
    part = folder / "answers.jsonl.part"
    write_jsonl(part, ({"id": answer.id, "input": answer.input, "text": answer.text} for answer in answers))
    part.replace(folder / "answers.jsonl")


def load_answers(folder: Path) -> list[Answer]:
    """Read what `save_answers` wrote."""
    rows = read_jsonl(folder / "answers.jsonl")
    arrays = load_file(folder / "answers.safetensors")
    ends = np.cumsum(arrays["lengths"])
    spans = [slice(end - length, end) for end, length in zip(ends, arrays["lengths"], strict=True)]
    return [
        Answer(
            **row,
            tokens=arrays["tokens"][span],
            top_ids=arrays["top_ids"][span],
            top_log_probs=arrays["top_log_probs"][span],
        )
        for row, span in zip(rows, spans, strict=True)
    ]


def by_id(folder: Path) -> dict[str, Answer]:
    """As `load_answers`, by the row's id."""
    return {answer.id: answer for answer in load_answers(folder)}


def _joined(parts: Sequence[npt.NDArray[np.generic]], dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros((0,), dtype=dtype)
