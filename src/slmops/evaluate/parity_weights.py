"""Are the weights that ship those of their source? Rounding moves them a little, and damage puts others in their place.

Answers tell a sound float export from a harmed one. In four bits they do not: a few rows of one matrix in another order
may change them by less than rounding does. The weights themselves do tell: a rounded row points where the source's does,
and any other row is at right angles to it. So every matrix is read back, and the cosine of the angle between each of
its rows and columns and the source's is taken. The tables that turn features by position are compared as well.

Whoever chose the values may have scaled rows or columns (`slmops.compress.awq`), which other matrices undo: the scales
that fit best are taken out first. And may have set weights to zero: these are left out.

Run as `python -m slmops.evaluate.parity_weights JOB.json`; see `Job`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.engines.onnx_weights import EMBEDDING, Array, OnnxWeights

Rotations = npt.NDArray[np.complexfloating[Any, Any]]

READABLE = ("onnxruntime-genai", "onnxruntime")
"""Engines whose files can be read back."""

_FEWEST = 16
"""Weights that a row or column must have besides zeros: fewer say little of where it points."""

_POSITIONS = 4096
"""Of a table are compared: beyond, the rounding of float32 angles shows."""


@dataclass(frozen=True)
class Weights:
    """What came out.

    Attributes:
        matrices: that were compared.
        cosine: the least of all rows and columns; 1 is the same, 0 another one.
        where: the row or column that it is of.
        turned: the most that a rotary table is off, as the distance of two points on the circle of radius 1 (or as far
            out as the model scales it); of the table nearest in the source.
        missing: matrices of either that the other has not.
    """

    matrices: int
    cosine: float
    where: str
    turned: float
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Whose weights.

    Attributes:
        source: a Hugging Face folder.
        shipped: a folder of one of `READABLE`.
        out: the file to write.
    """

    source: str
    shipped: str
    out: str


def compare_weights(source: Path, shipped: Path) -> Weights:
    """The matrices and rotary tables of the model in folder `shipped` against those of `source`."""
    given, read = OnnxWeights(shipped), _matrices(source)
    found: list[tuple[float, str]] = []
    seen: set[str] = set()
    for name, matrix in given.matrices():
        if name in read:
            found.append(least_cosine(read[name].matrix(), matrix, name))
        seen.add(name)
    missing = sorted(seen ^ {name for name, parts in read.items() if name in seen or parts.layer})
    cosine, where = min(found, default=(0.0, "no matrix"))
    turned = max((_turned(source, table) for _, table in given.rotations()), default=0.0)
    return Weights(len(found), cosine, where, turned, tuple(missing))


def least_cosine(source: Array, shipped: Array, name: str) -> tuple[float, str]:
    """The least cosine of a row or column of two matrices [outputs, inputs], and which it is."""
    if source.shape != shipped.shape:
        return 0.0, f"{name}, which is {shipped.shape} and was {source.shape}"
    by_rows, by_columns = _cosines(source, shipped), _cosines(source.T, shipped.T)
    kind, cosines = min(("row", by_rows), ("column", by_columns), key=lambda pair: pair[1].min())
    at = int(cosines.argmin())
    return float(cosines[at]), f"{kind} {at} of {name}"


def _cosines(source: Array, shipped: Array) -> npt.NDArray[np.float64]:
    """Of each row, with the scales of the columns taken out; 1 of those that have too few weights to say."""
    kept = np.where(shipped != 0, source, 0)
    scales = _ratio((shipped * kept).sum(axis=0), np.square(kept).sum(axis=0))
    kept = kept * scales
    lengths = np.sqrt(np.square(shipped).sum(axis=1) * np.square(kept).sum(axis=1))
    cosines = _ratio((shipped * kept).sum(axis=1), lengths).astype(np.float64)
    return np.where((shipped != 0).sum(axis=1) < min(_FEWEST, source.shape[1]), 1.0, cosines)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


@dataclass(frozen=True)
class _Parts:
    """A matrix of a Hugging Face folder under the name that the exporter gives it.

    Attributes:
        names: of its tensors, which stand below each other.
        half: which half of their rows it is; None takes all.
        layer: whether it is of a layer.
    """

    file: Any
    names: tuple[str, ...]
    half: int | None
    layer: bool

    def matrix(self) -> Array:
        rows = np.concatenate([self.file.get_tensor(name).float().numpy() for name in self.names])
        if self.half is None:
            return rows
        middle = len(rows) // 2
        return rows[:middle] if self.half == 0 else rows[middle:]


def _matrices(folder: Path) -> Mapping[str, _Parts]:
    """The exporter joins queries, keys and values, and keeps the two parts of what a gate lets through apart."""
    from safetensors import safe_open

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file: Any = safe_open(path, framework="pt")
        tensors |= {name: file for name in file.keys() if len(file.get_slice(name).get_shape()) == 2}  # noqa: SIM118
    found: dict[str, _Parts] = {}
    for name, file in tensors.items():
        for short, names, half in _as_exported(name):
            if all(each in tensors for each in names):
                found[short] = _Parts(file, names, half, short.startswith("layers."))
    if "lm_head" not in found and EMBEDDING in found:
        found["lm_head"] = found[EMBEDDING]
    return found


def _as_exported(name: str) -> Iterator[tuple[str, tuple[str, ...], int | None]]:
    """Name, tensors and half of what a tensor is, or begins, in the export."""
    short = re.sub(r"^model\.|\.weight$", "", name).replace(".self_attn.", ".attn.")
    if short.endswith(".gate_up_proj"):
        yield short.replace("gate_up_proj", "gate_proj"), (name,), 0
        yield short.replace("gate_up_proj", "up_proj"), (name,), 1
    elif short.endswith(".q_proj"):
        parts = tuple(name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj"))
        yield short.replace("q_proj", "qkv_proj"), parts, None
    elif not short.endswith((".k_proj", ".v_proj")):
        yield short, (name,), None


def _turned(source: Path, table: Rotations) -> float:
    """How far a rotary table is from the nearest of the source's, at its first positions."""
    table = table[:_POSITIONS]
    return min(float(np.abs(table - own).max()) for own in _rotations(source, len(table), table.shape[1]))


def _rotations(source: Path, positions: int, pairs: int) -> Iterator[Rotations]:
    """The source's tables of that shape: of each kind of layer, for short texts and for long ones."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        blank = AutoModelForCausalLM.from_config(config, trust_remote_code=False).model.rotary_emb
    rotary = type(blank)(config)
    whole = config.max_position_embeddings
    for kind in getattr(rotary, "layer_types", [None]):
        told = {} if kind is None else {"layer_type": kind}
        for length in {positions, whole}:
            cos, sin = rotary(torch.zeros(1), torch.arange(max(length, positions))[None], **told)
            table = torch.complex(cos, sin)[0, :positions, :pairs].numpy()
            if table.shape == (positions, pairs):
                yield table


def main(place: Path) -> None:
    job = Job(**json.loads(place.read_text(encoding="utf-8")))
    found = compare_weights(Path(job.source), Path(job.shipped))
    Path(job.out).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
