"""Examples of unlike length as the tensors of one batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from slmops.train.examples import Aligned, Example


def collate(examples: Sequence[Example], *, pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors of one batch.

    Returns:
        input_ids, attention_mask: int64 [rows, length]; predicts: bool [rows, length], the positions whose next
        token is an answer token, or whose own token is labelled; target: int64 [answer tokens] in row order, and
        soft_ids, soft_log_probs [answer tokens, k] where the examples carry them; certainty: float32 [answer tokens]
        where they are labelled, and counts: float32 [answer tokens] where classes are weighed. Where they are aligned
        with the teacher's tokens, what `collate_aligned` gives; where rows are compared, labels: int64 [rows], or what
        `collate_texts` gives.
    """
    batch = _padded(examples, pad)
    if examples[0].labels is not None:
        sure = [example.certainty or (1.0,) * len(example.answer) for example in examples]
        batch["certainty"] = torch.tensor([each for one in sure for each in one])
    if examples[0].counts is not None:
        batch["counts"] = torch.tensor([example.counts or 0.0 for example in examples for _ in example.answer])
    if any(example.label is not None for example in examples):
        batch["labels"] = torch.tensor(_numbered([example.label for example in examples]))
    texts = [example.texts for example in examples if example.texts is not None]
    if len(texts) == len(examples):
        batch |= collate_texts(texts, pad=pad)
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


def collate_texts(texts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, pad: int) -> dict[str, torch.Tensor]:
    """The inputs of one batch and its answers, each of those once.

    Returns:
        asked_ids, asked_mask: int64 [rows, longest]; told_ids, told_mask: int64 [answers, longest]; told_of: int64
        [rows], the answer of each row.
    """
    asked, told = zip(*texts, strict=True)
    batch = {"told_of": torch.tensor(_numbered(told))}
    for side, several in (("asked", asked), ("told", tuple(dict.fromkeys(told)))):
        rows = [torch.tensor(one) for one in several]
        batch[f"{side}_ids"] = pad_sequence(rows, batch_first=True, padding_value=pad)
        batch[f"{side}_mask"] = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return batch


def _numbered(values: Sequence[Hashable]) -> list[int]:
    """Like values as like numbers, from 0 on in the order of their coming; -1 for None."""
    numbers: dict[Hashable, int] = {}
    return [-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values]


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
