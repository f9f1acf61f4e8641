"""A bundle as a plain Hugging Face folder, with the values that the bundle computes with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slmops.bundle import Bundle
from slmops.bundle.manifest import CARD, MODEL
from slmops.engines.blocks import Blocks
from slmops.engines.onnx_weights import Array
from slmops.errors import BadInput
from slmops.export.folder import CONFIG, fresh, model_config, runs_on, write_json, writing_bundle
from slmops.export.parameters import HEAD, parameters, values

_HALF_MAX = float(np.finfo(np.float16).max)


def export_huggingface(folder: Path, out: Path, *, exact: bool = False) -> Path:
    """Write the bundle in `folder` to `out` as `AutoModelForCausalLM` reads it: safetensors, no code.

    A model that ships packed is written in sixteen bits, which are finer than its grid: a weight moves by 2⁻¹¹ of
    itself at most, and stays next to its own level. One that ships in float32 stays so.

    Args:
        exact: float32 in any case, so that no weight moves.

    Raises:
        BadInput: the bundle cannot be trusted, marks instead of writing, or is not for onnxruntime-genai; or `out`
            holds something.
    """
    bundle = writing_bundle(folder, "transformers")
    runs_on(bundle, "onnxruntime-genai", "an export to Hugging Face")
    config = model_config(bundle)
    fresh(out)
    parts = dict(parameters(folder / MODEL, config))
    packed = any(isinstance(part, Blocks) for part in parts.values())
    tensors = {name: values(part) for name, part in parts.items()}
    half = packed and not exact and max(float(np.abs(array).max()) for array in tensors.values()) <= _HALF_MAX
    config |= {"tie_word_embeddings": HEAD not in tensors, "dtype": "float16" if half else "float32"}
    _check_shape(config, tensors)
    _save(out, tensors, half)
    write_json(out / CONFIG, config)
    bundle.tokenizer.save(out)
    write_json(out / "generation_config.json", generation(bundle))
    if (folder / CARD).is_file():
        shutil.copyfile(folder / CARD, out / "README.md")
    return out


def generation(bundle: Bundle) -> dict[str, Any]:
    """How the bundle answers, as transformers is told."""
    told = bundle.manifest.generation
    drawn = {"do_sample": True, "temperature": told.temperature, "top_p": told.top_p}
    return {
        "max_new_tokens": told.max_tokens,
        "eos_token_id": sorted(bundle.tokenizer.end_ids),
        "pad_token_id": bundle.tokenizer.pad_id,
        **(drawn if told.temperature else {"do_sample": False}),
    }


def _check_shape(config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """Refuse weights that are not those of the configuration; transformers would make up what is missing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    told = dict(config)
    with torch.device("meta"):
        blank = AutoModelForCausalLM.from_config(AutoConfig.for_model(**told), trust_remote_code=False)
    wanted = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
    if HEAD not in tensors:
        wanted.pop(HEAD, None)
    found = {name: array.shape for name, array in tensors.items()}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        name = wrong[0]
        raise BadInput(
            f"the bundle's weights are not those of its {CONFIG}: {name} is {found.get(name)} instead of "
            f"{wanted.get(name)}"
        )


def _save(out: Path, tensors: Mapping[str, Array], half: bool) -> None:
    from safetensors.numpy import save_file

    kind = np.float16 if half else np.float32
    plain = {name: np.ascontiguousarray(array, dtype=kind) for name, array in tensors.items()}
    save_file(plain, out / "model.safetensors", metadata={"format": "pt"})
