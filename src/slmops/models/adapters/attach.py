"""Putting an adapter into a model, reading it out, and merging it into the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.models.adapters.files import PREFIX, AdapterWeights
from slmops.models.adapters.targets import linear_layers, rescaled, sublayer_ends
from slmops.recipe.tuning import LOW_RANK, Adapter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_MERGEABLE = ("LORA", "IA3")
_BOTTLENECK, _PROMPT, _VECTORS = "BOTTLENECK", "PROMPT_TUNING", "prompt_embeddings"


def attach(model: PreTrainedModel, adapter: Adapter, *, first: int = 0) -> None:
    """Put a new adapter into `model`, in its dtype; every other weight is still from now on.

    It changes nothing yet. How it begins is drawn from PyTorch's generator.

    Args:
        first: the lowest layer that gets a part of it.

    Raises:
        BadInput: the decoder is no plain stack of layers.
    """
    from peft import inject_adapter_in_model

    model.requires_grad_(False)
    if adapter.method == "prompt":
        _attach_prompt(model, adapter.tokens)
    elif adapter.method == "bottleneck":
        _attach_bottlenecks(model, sublayer_ends(model, first), adapter.width)
    else:
        inject_adapter_in_model(_peft_config(model, adapter, first), model)


def adapter_weights(model: PreTrainedModel, adapter: Adapter) -> AdapterWeights:
    """What `attach` put into `model`, as it is now; float32 on the processor."""
    from peft import get_peft_model_state_dict

    if adapter.method == "prompt":
        config, tensors = _prompt_config(model, adapter), {_VECTORS: model.soft_prompt.vectors}
    elif adapter.method == "bottleneck":
        names, tensors = _bottlenecks(model), {}
        config = {"peft_type": _BOTTLENECK, "width": adapter.width, "target_modules": names}
        for name in names:
            module = model.get_submodule(name)
            for part in ("down", "up"):
                own = getattr(module, part).state_dict()
                tensors |= {f"{PREFIX}{name}.{part}.{kind}": value for kind, value in own.items()}
    else:
        config = plain_config(model.peft_config["default"].to_dict())
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {PREFIX + name: value for name, value in state.items()}
    return AdapterWeights(config, {name: value.detach().float().cpu().clone() for name, value in tensors.items()})


def merge(model: PreTrainedModel) -> None:
    """Add an adapter that can be merged to the weights of `model`, which is a plain one then.

    Raises:
        SlmopsError: a merged weight is no number.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    from slmops.errors import SlmopsError

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            try:
                module.merge(safe_merge=True)
            except ValueError as error:
                raise SlmopsError(f"merging the adapter into {name} failed: {error}", hint="train it anew") from error
            model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def put_on(model: PreTrainedModel, weights: AdapterWeights) -> None:
    """Put an adapter that stays beside the weights into `model`, in its dtype.

    Raises:
        BadInput: it is of a kind that would have been merged, or of another model.
    """
    import torch

    kind, tensors = weights.config.get("peft_type"), weights.tensors
    try:
        if kind == _PROMPT:
            _attach_prompt(model, int(weights.config["num_virtual_tokens"]))
            own: dict[str, torch.Tensor] = {_VECTORS: model.soft_prompt.vectors}
        elif kind == _BOTTLENECK:
            names = list(weights.config["target_modules"])
            _attach_bottlenecks(model, names, int(weights.config["width"]))
            own = {name: dict(model.named_parameters())[name.removeprefix(PREFIX)] for name in tensors}
        else:
            raise BadInput(f"an adapter of the kind {kind} does not stay beside a model", hint="merge it")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(tensors[name])
    except (AttributeError, KeyError, RuntimeError) as error:
        raise BadInput(f"the adapter does not fit the model: {error}", hint="it belongs to another one") from error


def merge_from(model: PreTrainedModel, folder: Path) -> None:
    """Add an adapter in PEFT's format that can be merged to the weights of `model`.

    Raises:
        BadInput: there is none, it cannot be merged, or it is of another model.
        SlmopsError: a merged weight is no number.
    """
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    weights = AdapterWeights.load(folder)
    if weights.config.get("peft_type") not in _MERGEABLE:
        kind = weights.config.get("peft_type")
        raise BadInput(f"the adapter in {folder} is of the kind {kind}, which does not become part of the weights")
    try:
        inject_adapter_in_model(PeftConfig.from_peft_type(**weights.config), model)  # type: ignore[no-untyped-call]
        told: Any = set_peft_model_state_dict(model, dict(weights.tensors))
        if told.unexpected_keys:
            raise KeyError(told.unexpected_keys[0])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise BadInput(
            f"the adapter in {folder} does not fit the model: {said}", hint="it is of another one"
        ) from error
    merge(model)


def stays(model: PreTrainedModel) -> Adapter | None:
    """The adapter that stays beside the weights of `model`, if it has one."""
    from slmops.models.adapters.soft_prompt import prompt_tokens

    if tokens := prompt_tokens(model):
        return Adapter(method="prompt", tokens=tokens)
    if names := _bottlenecks(model):
        return Adapter(method="bottleneck", width=model.get_submodule(names[0]).down.out_features)
    return None


@contextmanager
def without(model: PreTrainedModel) -> Iterator[None]:
    """The model without an adapter that stays beside its weights, for the length of a block."""
    from slmops.models.adapters.soft_prompt import put_before, soft_prompt, take_away

    if soft_prompt(model) is not None:
        prompt = take_away(model)
        yield
        put_before(model, prompt)
        return
    modules = {name: model.get_submodule(name) for name in _bottlenecks(model)}
    for name, module in modules.items():
        model.set_submodule(name, module.base_layer)
    yield
    for name, module in modules.items():
        model.set_submodule(name, module)


def _attach_prompt(model: PreTrainedModel, tokens: int) -> None:
    from slmops.models.adapters.soft_prompt import SoftPrompt, put_before

    put_before(model, SoftPrompt(model, tokens))


def _attach_bottlenecks(model: PreTrainedModel, names: list[str], width: int) -> None:
    from slmops.models.adapters.bottleneck import Bottleneck

    for name in names:
        model.set_submodule(name, Bottleneck(model.get_submodule(name), width))


def _bottlenecks(model: PreTrainedModel) -> list[str]:
    from slmops.models.adapters.bottleneck import Bottleneck

    return [name for name, module in model.named_modules() if isinstance(module, Bottleneck)]


def _peft_config(model: PreTrainedModel, adapter: Adapter, first: int) -> Any:
    from peft import IA3Config, LoraConfig

    if adapter.method in LOW_RANK:
        return LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=linear_layers(model, first),
            use_rslora=adapter.method == "rslora",
            use_dora=adapter.method == "dora",
            task_type="CAUSAL_LM",
        )
    outputs, inputs = rescaled(model, first)
    return IA3Config(target_modules=[*outputs, *inputs], feedforward_modules=inputs, task_type="CAUSAL_LM")


def _prompt_config(model: PreTrainedModel, adapter: Adapter) -> dict[str, Any]:
    """As PEFT writes it."""
    from peft import PromptTuningConfig

    text = model.config.get_text_config()
    return plain_config(
        PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=adapter.tokens,
            token_dim=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            num_transformer_submodules=1,
        ).to_dict()
    )


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON, the same at every run: PEFT keeps names in sets. What was trained where is nobody's business."""
    told = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    return {**told, "base_model_name_or_path": None, "inference_mode": True}
