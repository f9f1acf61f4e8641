"""Reference answers in free text: one, or several of which any will do."""

from __future__ import annotations

from typing import Any


def references(answer: Any) -> list[str]:
    """The reference texts, without outer spaces; a model's answer is a single one."""
    return [text.strip() for text in ([answer] if isinstance(answer, str) else answer)]


def check_references(answer: Any) -> str | None:
    """Why `answer` is neither a text nor a list of texts, or None."""
    texts = [answer] if isinstance(answer, str) else answer
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return f"{str(answer)[:60]!r} is neither a text nor a list of texts"
    return None if all(map(str.strip, texts)) else "an answer is empty"
