"""A bundle as one GGUF file with its vocabulary, of the very values that the bundle computes with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmops.bundle import Bundle
from slmops.bundle.manifest import MODEL
from slmops.engines.blocks import GGUF_BLOCK, Blocks, gguf_bytes, gguf_kind
from slmops.engines.gguf_settings import described
from slmops.engines.llamacpp import FILE
from slmops.errors import BadInput
from slmops.export.folder import model_config
from slmops.export.gguf_vocabulary import vocabulary
from slmops.export.parameters import Part, parameters

Tensor = tuple[str, npt.NDArray[Any], Any]
"""Name, bytes or numbers, and type in GGUF."""


def write_gguf(bundle: Bundle, path: Path) -> None:
    """Write the model of `bundle` to `path`.

    Raises:
        BadInput: llama.cpp cannot be told of its architecture, its blocks or its tokenizer; nothing is written then.
    """
    import gguf

    if bundle.manifest.engine == "llama.cpp":
        arch, keys, tensors = _read(bundle.folder / MODEL / FILE)
    else:
        arch, keys, tensors = _made(bundle)
    told = vocabulary(bundle.tokenizer, keys[f"{arch}.vocab_size"])
    keys |= told | {"general.name": bundle.manifest.name, "general.version": bundle.manifest.version}
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        _add_key(writer, key, value)
    for name, array, kind in tensors:
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_key(writer: Any, key: str, value: Any) -> None:
    import gguf

    kinds = {str: "STRING", float: "FLOAT32", int: "UINT32", bool: "BOOL", list: "ARRAY"}
    # Kinds of tokens are signed there.
    inner = gguf.GGUFValueType.INT32 if key.endswith("token_type") else None
    writer.add_key_value(key, value, gguf.GGUFValueType[kinds[type(value)]], sub_type=inner)


def _read(path: Path) -> tuple[str, dict[str, Any], list[Tensor]]:
    """What the bundle's own file says, which has no vocabulary, and its tensors as they are."""
    import gguf

    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    arch = keys.pop("general.architecture")
    return arch, keys, [(tensor.name, tensor.data, tensor.tensor_type) for tensor in reader.tensors]


def _made(bundle: Bundle) -> tuple[str, dict[str, Any], list[Tensor]]:
    """Keys and tensors for what the bundle has in ONNX."""
    import gguf

    config = model_config(bundle)
    told = described(config)
    names = gguf.get_tensor_name_map(told.arch, config["num_hidden_layers"])
    tensors: list[Tensor] = [(name, array, gguf.GGMLQuantizationType.F32) for name, array in told.tensors.items()]
    for name, part in _turned(bundle, config, told.turned):
        module, kind = name.rsplit(".", 1)
        tensors.append((f"{names.get_name(module)}.{kind}", *_stored(name, part)))
    return gguf.MODEL_ARCH_NAMES[told.arch], dict(told.values), tensors


def _turned(bundle: Bundle, config: Mapping[str, Any], turned: Any) -> Iterator[tuple[str, Part]]:
    for name, part in parameters(bundle.folder / MODEL, config):
        module = name.rsplit(".", 1)[0]
        if isinstance(part, Blocks):
            yield name, part.by_rows(lambda array, module=module: turned(module, array))  # type: ignore[misc]
        else:
            yield name, turned(module, part)


def _stored(name: str, part: Part) -> tuple[npt.NDArray[Any], Any]:
    import gguf

    if not isinstance(part, Blocks):
        return np.ascontiguousarray(part, dtype=np.float32), gguf.GGMLQuantizationType.F32
    try:
        blocks = part.in_blocks_of(GGUF_BLOCK)
        return gguf_bytes(blocks), getattr(gguf.GGMLQuantizationType, gguf_kind(blocks))
    except BadInput as error:
        raise BadInput(
            f"{name} cannot be written as GGUF with the bundle's values: {error}",
            hint=error.hint or "set compress.block_size: 32, and run the recipe again",
        ) from error
