"""Examples of unlike length as the tensors of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from slmops.train.examples import Aligned, Example


def collate(examples: Sequence[Example], *, pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors of one batch.

    Returns:
        input_ids, attention_mask: int64 [rows, length]; predicts: bool [rows, length], the positions whose next
        token is an answer token, or whose own token is labelled; target: int64 [answer tokens] in row order, and
        soft_ids, soft_log_probs [answer tokens, k] where the examples carry them; certainty: float32 [answer tokens]
        where they are labelled, and counts: float32 [answer tokens] where classes are weighed. Where they are aligned
        with the teacher's tokens, what `collate_aligned` gives.
    """
    batch = _padded(examples, pad)
    if examples[0].labels is not None:
        sure = [example.certainty or (1.0,) * len(example.answer) for example in examples]
        batch["certainty"] = torch.tensor([each for one in sure for each in one])
    if examples[0].counts is not None:
        batch["counts"] = torch.tensor([example.counts or 0.0 for example in examples for _ in example.answer])
    soft = [example.soft for example in examples if example.soft is not None]
    if len(soft) == len(examples):
        batch["soft_ids"] = torch.cat([torch.from_numpy(targets.ids) for targets in soft])
        batch["soft_log_probs"] = torch.cat([torch.from_numpy(targets.log_probs) for targets in soft])
    aligned = [example.aligned for example in examples if example.aligned is not None]
    return batch | (collate_aligned(aligned, pad=pad) if len(aligned) == len(examples) else {})


def collate_aligned(aligned: Sequence[Aligned], *, pad: int) -> dict[str, torch.Tensor]:
    """The spans of one batch, numbered through it, and its texts in the teacher's tokens.

    Returns:
        span_of: int64 [answer tokens], the span of each of the student's; span_log_probs: float32 [spans];
        span_begins: float32 [spans, k]; teacher_input_ids, teacher_attention_mask, teacher_predicts, teacher_target and
        teacher_span_of as their counterparts of the student.
    """
    theirs, ours = (
        torch.cat([torch.from_numpy(np.diff(each.ends[:, side], prepend=0)) for each in aligned]) for side in (0, 1)
    )
    number = torch.arange(len(ours))
    padded = _padded([Example(each.prompt, each.answer) for each in aligned], pad)
    return {
        "span_of": number.repeat_interleave(ours),
        "span_log_probs": torch.cat([torch.from_numpy(each.log_probs) for each in aligned]),
        "span_begins": torch.cat([torch.from_numpy(each.begins) for each in aligned]),
        "teacher_span_of": number.repeat_interleave(theirs),
        **{f"teacher_{name}": tensor for name, tensor in padded.items()},
    }


def _padded(examples: Sequence[Example], pad: int) -> dict[str, torch.Tensor]:
    """Prompts and answers, right-padded: `input_ids`, `attention_mask`, `predicts` and `target` of `collate`."""
    longest = max(len(example) for example in examples)
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.answer)
        mask[row, : len(example)] = 1
        predicts[row, example.predicts] = True
    target = torch.tensor([token for example in examples for token in example.target])
    return {"input_ids": ids, "attention_mask": mask, "predicts": predicts, "target": target}
