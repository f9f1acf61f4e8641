"""Prompt tuning: learned vectors stand before every prompt (Lester et al. 2021)."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "soft_prompt"


class SoftPrompt(torch.nn.Module):
    """The vectors, [tokens, hidden]; they begin as those of tokens drawn from the vocabulary, in the model's dtype."""

    def __init__(self, model: PreTrainedModel, tokens: int) -> None:
        super().__init__()
        embeddings = model.get_input_embeddings().weight
        drawn = torch.randint(len(embeddings), (tokens,), device=embeddings.device)
        self.vectors = torch.nn.Parameter(embeddings.detach()[drawn].clone())

    def __len__(self) -> int:
        return len(self.vectors)


def put_before(model: PreTrainedModel, prompt: SoftPrompt) -> None:
    """Let the decoder of `model` read `prompt` before all else.

    Whoever calls the decoder notices nothing: masks and positions are told without the prompt, and the states that
    come back are those of the caller's tokens.
    """
    model.add_module(_NAME, prompt)
    decoder = model.get_decoder()
    plain = decoder.forward

    def forward(
        _decoder: Any,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **others: Any,
    ) -> Any:
        embeds = model.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        rows, tokens = len(embeds), len(prompt)
        begins = past_key_values is None or past_key_values.get_seq_length() == 0
        if begins:
            embeds = torch.cat([prompt.vectors.to(embeds.dtype).expand(rows, -1, -1), embeds], dim=1)
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask.new_ones(rows, tokens), attention_mask], dim=1)
        if position_ids is not None:
            position_ids = position_ids + tokens
            if begins:
                first = torch.arange(tokens, device=position_ids.device).expand(len(position_ids), -1)
                position_ids = torch.cat([first, position_ids], dim=1)
        output = plain(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **others,
        )
        if begins:
            output.last_hidden_state = output.last_hidden_state[:, tokens:]
        return output

    decoder.forward = MethodType(forward, decoder)


def take_away(model: PreTrainedModel) -> SoftPrompt:
    """The model as it was without its prompt, which is returned."""
    prompt: SoftPrompt = getattr(model, _NAME)
    delattr(model, _NAME)
    del model.get_decoder().forward
    return prompt


def soft_prompt(model: PreTrainedModel) -> SoftPrompt | None:
    """The model's prompt, if it has one."""
    return getattr(model, _NAME, None)


def prompt_tokens(model: PreTrainedModel) -> int:
    """Tokens of the context that are not the caller's."""
    prompt = soft_prompt(model)
    return 0 if prompt is None else len(prompt)
