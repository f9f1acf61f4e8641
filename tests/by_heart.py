"""Models of two layers that know a few answers by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmops.models.tokenizer import Tokenizer


def learn_by_heart(folder: Path, tokenizer: Tokenizer, pairs: Sequence[tuple[list[int], str]], context: int) -> None:
    """Write a Llama to `folder` that gives each prompt its answer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    (end,) = tokenizer.end_ids
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    rows = [(prompt, [*tokenizer.encode(answer), end]) for prompt, answer in pairs]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.tensor([[*prompt, *answer] + [end] * (width - len(prompt) - len(answer)) for prompt, answer in rows])
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(rows):
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.01, "the tiny model must know its answers by heart"
    model.save_pretrained(folder)
    tokenizer.save(folder)
