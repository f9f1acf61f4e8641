"""A base in four bits below an adapter: QLoRA (Dettmers et al. 2023), through bitsandbytes.

Weights are NF4 in blocks of 64 with scales that are quantised themselves (double quantisation, section 3).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.adapters.targets import linear_layers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BLOCK, _SCALES = 64, 256
"""Weights that share a scale, and scales that share one of their own."""


def check_four_bits() -> None:
    """Refuse what needs bitsandbytes where it is not installed.

    Raises:
        BadInput: it is not.
    """
    if find_spec("bitsandbytes") is None:
        raise BadInput("method: qlora needs bitsandbytes", hint="pip install 'slmops[qlora]'")


def load_in_four_bits(folder: Path, *, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """The model in `folder` in evaluation mode, its layers' matrices in four bits and all else in `dtype`.

    It computes in `dtype`, and every weight is put into four bits as it is read.

    Raises:
        BadInput: bitsandbytes is not installed.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from slmops.models.source import hush

    check_four_bits()
    hush()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        device_map={"": device},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )
    return model.eval()


def through_four_bits(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the matrices of the layers the values that they have in four bits, in place and in their own dtype.

    An adapter was trained beside these values, so they are what it is merged into.

    Args:
        dtype: what they were quantised from.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    for name in linear_layers(model):
        weight = model.get_submodule(name).weight
        with torch.no_grad():
            packed, state = quantize_4bit(
                weight.to(dtype), blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
            )
            weight.copy_(dequantize_4bit(packed, state))


def packed_bytes(matrix: Any) -> int:
    """Bytes of a linear map's matrix in four bits, with its scales."""
    count: int = matrix.in_features * matrix.out_features
    return count // 2 + count // _BLOCK + 4 * count // (_BLOCK * _SCALES)
