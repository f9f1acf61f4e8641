"""What the stages have in common that make the answers of several teachers one artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import Row
    from slmops.teach.answers import Answer


def in_one_vocabulary(
    chosen: Sequence[tuple[int, Answer]], tokenizers: Sequence[Tokenizer]
) -> tuple[list[Answer], bool]:
    """The answers in the first teacher's tokens, and whether these are everyone's.

    Args:
        chosen: the position of the teacher who wrote, and the answer.
    """
    from slmops.teach.combine import retold, share_vocabulary

    first = tokenizers[0]
    if all(share_vocabulary(first, other) for other in tokenizers[1:]):
        return [answer for _, answer in chosen], True
    return [retold(answer, tokenizers[teacher], first) for teacher, answer in chosen], False


def written(
    inputs: Mapping[str, Path],
    out: Path,
    texts: Sequence[Answer],
    dropped: Sequence[Row],
    teachers: Sequence[int],
    beside: Mapping[str, Any] | None = None,
) -> Mapping[str, float | str]:
    """Write the artifact as that of one teacher.

    Args:
        teachers: the position of the teacher of each text.
        beside: what else it cost than the answers of all teachers.

    Returns:
        The figures: rows, how many have the text of which teacher, and what all cost where an endpoint was asked.
    """
    from slmops.data.read import write_jsonl
    from slmops.teach.answers import save_answers
    from slmops.teach.paying import cost_in, keep_sum

    save_answers(out, texts)
    write_jsonl(out / "dropped.jsonl", dropped)
    numbers = numbers_of(inputs, "answers_")
    costs = [cost_in(inputs[f"answers_{n}"]) for n in numbers]
    cost = keep_sum([one for one in (*costs, beside) if one], out)
    counts = {f"rows_of_{numbers[teacher]}": rows for teacher, rows in sorted(Counter(teachers).items())}
    return {"rows": len(texts), "dropped": len(dropped), **counts, **cost}


def numbers_of(inputs: Mapping[str, Path], beginning: str) -> list[int]:
    """The numbers of the teachers that have an input of this beginning."""
    return sorted(int(name.removeprefix(beginning)) for name in inputs if name.startswith(beginning))


def tokenizers_of(inputs: Mapping[str, Path]) -> list[Tokenizer]:
    from slmops.models.tokenizer import Tokenizer

    return [Tokenizer.load(inputs[f"engine_{n}"] / "model") for n in numbers_of(inputs, "engine_")]
