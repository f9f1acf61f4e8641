"""The teacher's answers as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.stage import Context
from slmops.recipe.training import TeachSettings

AGREEMENT_ROWS = 32


class Teach:
    """`data`, `engine` (the exported teacher) and `model` (the same in PyTorch) → the pool's answers.

    Artifact: `answers.jsonl`, `answers.safetensors`, and `dropped.jsonl` with the reason of each answer not used.
    """

    name: ClassVar[str] = "teach"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: TeachSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import from_description
        from slmops.tasks.base import ParseFailure
        from slmops.teach.answers import save_answers
        from slmops.teach.label import agreement, label_pool

        task = from_description(json.loads((inputs["data"] / "task.json").read_text(encoding="utf-8")))
        rows = read_jsonl(inputs["data"] / "pool.jsonl")
        if not rows:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        tokenizer = Tokenizer.load(inputs["engine"] / "model")
        engine = load_engine("onnxruntime-genai", inputs["engine"] / "model")
        ask = partial(
            label_pool,
            engine,
            tokenizer,
            task,
            batch=settings.batch,
            top_logits=settings.top_logits,
            progress=context.progress,
        )
        first = ask(rows[:AGREEMENT_ROWS], work=context.work / "first")
        agrees = agreement(load_engine("transformers", inputs["model"] / "model"), first, tokenizer, task)
        context.progress.note(f"the exported teacher writes the same answer as PyTorch on {agrees:.0%} of a sample")
        if agrees < settings.min_agreement:
            raise SlmopsError(
                f"the exported teacher agrees with PyTorch on {agrees:.0%} of the answers, "
                f"less than teach.min_agreement {settings.min_agreement:.0%}",
                hint="set teach.precision: fp32",
            )
        answers = first + ask(rows[AGREEMENT_ROWS:], work=context.work / "rest")
        kept, dropped = [], []
        for answer in answers:
            parsed = task.parse(answer.text)
            if isinstance(parsed, ParseFailure):
                dropped.append({"id": answer.id, "text": answer.text, "reason": parsed.reason})
            else:
                kept.append(answer)
        if not kept:
            raise SlmopsError(
                f"none of the teacher's {len(answers)} answers has the form of the task; "
                f"the first: {answers[0].text!r}",
                hint="fit the teacher longer (teachers.0.fit.epochs)",
            )
        save_answers(context.out, kept)
        write_jsonl(context.out / "dropped.jsonl", dropped)
        tokens = sum(len(answer.tokens) for answer in answers)
        return {"rows": len(kept), "dropped": len(dropped), "answer_tokens": tokens, "agreement": agrees}
