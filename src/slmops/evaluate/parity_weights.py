"""Are the weights that ship those of their source? Rounding moves them a little, and damage puts others in their place.

Answers tell a sound float export from a harmed one. In four bits they do not: a few rows of one matrix in another
order may change them by less than rounding does. The weights do tell: a rounded row points where the source's does,
and any other row is at right angles to it. So every matrix is read back, and the cosine of the angle between each of
its rows and columns and the source's is taken. Where rounding is as large as a whole column it may be small; that
column is still more like its own than like any other of the source, or else it is not in its place. The tables that
turn features by position are compared as well.

Whoever chose the values may have scaled rows or columns (`slmops.compress.awq`), which other matrices undo: the scales
that fit best are taken out first. And may have set weights to zero: these are left out.

Run as `python -m slmops.evaluate.parity_weights JOB.json`; see `Job`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slmops.engines.gguf_weights import GgufWeights
from slmops.engines.onnx_weights import EMBEDDING, Array, OnnxWeights, Rotations
from slmops.models.spelling import spelling
from slmops.models.tokenizer import Tokenizer

READERS: Mapping[str, Callable[[Path], OnnxWeights | GgufWeights]] = {
    "onnxruntime-genai": OnnxWeights,
    "openvino": OnnxWeights,
    "llama.cpp": GgufWeights,
}
"""Engines whose files can be read back."""

CLEAR = 0.5
"""A cosine from which on nobody needs to ask what else a row is like: of two others it is about 0."""

_BY_TOKEN = (EMBEDDING, "lm_head")
"""Matrices with a row for each token; of a cut vocabulary those that were kept."""

_FEWEST = 16
"""Weights that a row or column must have besides zeros: fewer say little of where it points."""

_POSITIONS = 4096
"""Of a table are compared: beyond, the rounding of float32 angles shows."""


@dataclass(frozen=True)
class Weights:
    """What came out.

    Attributes:
        matrices: that were compared.
        misplaced: rows and columns that are more like another of the source than like their own.
        where: the first of them; without any, the row or column that is least like its own.
        cosine: of what `where` tells, with its own; 1 is the same, 0 another one.
        turned: the most that a rotary table is off, as the distance of two points on the circle of radius 1 (or as far
            out as the model scales it); of the table nearest in the source.
        missing: matrices of either that the other has not.
    """

    matrices: int
    misplaced: int
    where: str
    cosine: float
    turned: float
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """Whose weights.

    Attributes:
        source: a Hugging Face folder.
        shipped: a folder of `engine`.
        engine: one of `READERS`.
        out: the file to write.
    """

    source: str
    shipped: str
    engine: str
    out: str


def compare_weights(source: Path, shipped: Path, engine: str = "onnxruntime-genai") -> Weights:
    """The matrices and rotary tables of the model in folder `shipped` against those of `source`.

    Args:
        engine: that `shipped` is for, one of `READERS`.
    """
    given, read = READERS[engine](shipped), _matrices(source)
    spelled = spelling(Tokenizer.load(source), Tokenizer.load(shipped))
    found: list[Likeness] = []
    seen: set[str] = set()
    for name, matrix in given.matrices():
        if name in read:
            whole = read[name].matrix()
            rows = spelled.kept if spelled and name in _BY_TOKEN else slice(None)
            found += likenesses(whole[rows], matrix, name)
        seen.add(name)
    missing = sorted(seen ^ {name for name, parts in read.items() if name in seen or parts.layer})
    worst = min(found, key=lambda one: (one.misplaced == 0, one.cosine), default=Likeness(0, 0.0, "no matrix"))
    turned = max((_turned(source, table) for _, table in given.rotations()), default=0.0)
    misplaced = sum(one.misplaced for one in found)
    return Weights(len(seen & read.keys()), misplaced, worst.where, worst.cosine, turned, tuple(missing))


class Likeness(NamedTuple):
    """Of all rows, or of all columns, of a matrix; as of `Weights`."""

    misplaced: int
    cosine: float
    where: str


def likenesses(source: Array, shipped: Array, name: str) -> list[Likeness]:
    """Of the rows and of the columns of two matrices [outputs, inputs]."""
    if source.shape != shipped.shape:
        return [Likeness(len(source), 0.0, f"{name}, which is {shipped.shape} and was {source.shape}")]
    return [
        _likeness(source, shipped, f"row {{}} of {name}"),
        _likeness(source.T, shipped.T, f"column {{}} of {name}"),
    ]


def _likeness(source: Array, shipped: Array, called: str) -> Likeness:
    """Of rows, with the scales of columns taken out; rows with too few weights are taken to be their own."""
    present = shipped != 0
    kept = np.where(present, source, 0)
    scales = _ratio((shipped * kept).sum(axis=0), np.square(kept).sum(axis=0))
    kept *= scales
    cosines = _cosines(kept, shipped)
    cosines[present.sum(axis=1) < min(_FEWEST, source.shape[1])] = 1
    least = int(cosines.argmin())
    others = {}
    for row in np.flatnonzero(cosines < CLEAR):
        all_of_them = _cosines(np.where(present[row], source * scales, 0), shipped[row])
        if (best := int(all_of_them.argmax())) != row:
            others[int(row)] = best
    if not others:
        return Likeness(0, float(cosines[least]), called.format(least))
    first, like = next(iter(others.items()))
    return Likeness(len(others), float(cosines[first]), f"{called.format(first)}, which is more like {like}")


def _cosines(one: Array, other: Array) -> Array:
    """Of the rows of two matrices, or of those of a matrix with one row."""
    lengths = np.sqrt(np.square(one).sum(axis=-1) * np.square(other).sum(axis=-1))
    return _ratio((one * other).sum(axis=-1), lengths)


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
    found = compare_weights(Path(job.source), Path(job.shipped), job.engine)
    Path(job.out).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
