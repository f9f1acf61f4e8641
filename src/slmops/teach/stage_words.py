"""Answers of teachers that run here as words alone, beside those of teachers that give no more, as a stage of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings


class Retell:
    """`answers`, `writer` (whose tokens they are in) and `model` (who learns) → the same words in the latter's tokens.

    The artifact is as of `Teach`, without probabilities.
    """

    name: ClassVar[str] = "retell"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.teach.answers import load_answers, save_answers
        from slmops.teach.combine import retold

        writer, reader = (Tokenizer.load(inputs[name] / "model") for name in ("writer", "model"))
        answers = [retold(answer, writer, reader) for answer in load_answers(inputs["answers"])]
        save_answers(context.out, answers)
        shutil.copyfile(inputs["answers"] / "dropped.jsonl", context.out / "dropped.jsonl")
        return {"rows": len(answers), "answer_tokens": sum(len(answer.tokens) for answer in answers)}
