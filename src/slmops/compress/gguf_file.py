"""From a Hugging Face folder to a GGUF file for llama.cpp, with the values that `pack` chooses.

llama.cpp's blocks of 32 hold what ours do: Q4_0 and Q8_0 a scale in sixteen bits and levels around the middle one, Q4_1
the value of level 0 besides. So what GPTQ or AWQ chose runs there too, where its own quantiser rounds to nearest.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.compress.pack import BITS, Packed, packed
from slmops.engines.blocks import Blocks, gguf_bytes, gguf_kind
from slmops.engines.gguf_settings import Described, described
from slmops.engines.llamacpp import FILE
from slmops.engines.onnx_weights import levels_of
from slmops.errors import BadInput
from slmops.models.source import CONFIG, TOKENIZER_FILES
from slmops.recipe.compress import CompressSettings

_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"

_HALF = {"fp16": "F16", "bf16": "BF16"}
"""What llama.cpp calls them."""

Array = npt.NDArray[Any]


def write_gguf(model: Path, out: Path, settings: CompressSettings, *, int8_layers: Collection[int] = ()) -> None:
    """Write the model in folder `model` to `out` as `settings` say, with its tokenizer beside it.

    Prompts are tokens when they reach the runtime, so the file itself has no vocabulary.

    Raises:
        BadInput: llama.cpp does not know the architecture or something in it, or blocks do not go into its width.
    """
    import gguf

    config = json.loads((model / CONFIG).read_text(encoding="utf-8"))
    told = described(config)
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out / FILE, gguf.MODEL_ARCH_NAMES[told.arch])
    for key, value in told.values.items():
        kind = {str: "STRING", float: "FLOAT32", int: "UINT32"}[type(value)]
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])
    for name, array in told.tensors.items():
        writer.add_tensor(name, array)
    names = gguf.get_tensor_name_map(told.arch, config["num_hidden_layers"])
    for name, part, array in _tensors(model, told, settings):
        _add(writer, f"{names.get_name(name)}.{part}", array, _bits(name, array, settings, int8_layers), settings)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for file in (CONFIG, *TOKENIZER_FILES):
        if (model / file).exists():
            shutil.copyfile(model / file, out / file)


def _tensors(folder: Path, told: Described, settings: CompressSettings) -> Iterator[tuple[str, str, Array]]:
    """Module, `weight` or `bias`, and values as llama.cpp has them, float32.

    A head that is the embedding is written once, unless the two ship in different bits.
    """
    from safetensors import safe_open

    headed = False
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                module, part = name.rsplit(".", 1)
                array = told.turned(module, file.get_tensor(name).float().numpy())
                headed |= module == _HEAD
                yield module, part, array
                if module == _EMBEDDING:
                    embedding = array
    apart = settings.packed and settings.embedding not in (None, settings.head)
    if not headed and apart:
        yield _HEAD, "weight", embedding


def _bits(name: str, array: Array, settings: CompressSettings, int8_layers: Collection[int]) -> int | None:
    """How many the values of a module get in blocks; None packs none."""
    if array.ndim < 2 or not settings.packed:
        return None
    if name == _EMBEDDING:
        return BITS.get(settings.embedding or settings.head)
    if name == _HEAD:
        return BITS.get(settings.head)
    layer = re.search(r"layers\.(\d+)\.", name)
    return 8 if layer and int(layer[1]) in int8_layers else BITS.get(settings.precision)


def _add(writer: Any, name: str, array: Array, bits: int | None, settings: CompressSettings) -> None:
    import gguf
    import gguf.quants

    if bits is None:
        # llama.cpp adds and scales in float32, so norms and biases stay.
        kind = getattr(gguf.GGMLQuantizationType, "F32" if array.ndim < 2 else _HALF.get(settings.precision, "F32"))
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
        return
    if array.shape[1] % settings.block_size:
        raise BadInput(
            f"llama.cpp packs rows in blocks of {settings.block_size}, and {name} has {array.shape[1]} columns",
            hint="set compress.runtime: onnxruntime-genai, which fills the last block up",
        )
    blocks = _blocks(packed(array, bits, settings))
    writer.add_tensor(name, gguf_bytes(blocks), raw_dtype=getattr(gguf.GGMLQuantizationType, gguf_kind(blocks)))


def _blocks(made: Packed) -> Blocks:
    rows, count = made.scales.shape
    levels = levels_of(made.values.reshape(rows, -1), made.bits).reshape(rows, count, made.block_size)
    zeros = None if made.zeros is None else levels_of(made.zeros, made.bits)[:, :count]
    return Blocks(made.bits, made.width, levels, made.scales, zeros)
