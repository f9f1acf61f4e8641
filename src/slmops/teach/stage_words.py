"""Answers as words alone of teachers that run here, as stages of a run: a bundle's, and those beside an endpoint's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from slmops.errors import BadInput
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


class BundleAsking(Settings):
    """How a bundle is asked."""

    engine: str
    batch: int


class TeachByBundle:
    """`data`, `bundle` (its `model/`) and `model` (who learns) → the bundle's answers, told in the latter's tokens.

    The artifact is as of `Teach`, without probabilities.
    """

    name: ClassVar[str] = "teach-bundle"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: BundleAsking, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.teach.answers import save_answers
        from slmops.teach.combine import retold
        from slmops.teach.label import formed, label_pool

        task, rows = task_of(inputs["data"]), read_jsonl(inputs["data"] / "pool.jsonl")
        if not rows:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        writer, reader = (Tokenizer.load(inputs[name] / "model") for name in ("bundle", "model"))
        answers = label_pool(
            load_engine(settings.engine, inputs["bundle"] / "model", gpu=True),
            writer,
            task,
            rows,
            batch=settings.batch,
            top_logits=0,
            work=context.work,
            progress=context.progress,
        )
        kept, dropped = formed(rows, answers, task, mend="take a bundle that knows the task better")
        told = [retold(answer, writer, reader) for answer in kept]
        save_answers(context.out, told)
        write_jsonl(context.out / "dropped.jsonl", dropped)
        tokens = sum(len(answer.tokens) for answer in told)
        return {"rows": len(told), "dropped": len(dropped), "answer_tokens": tokens}
