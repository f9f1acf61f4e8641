"""The teacher's answers as a stage of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.stage import Context
from slmops.progress import Progress
from slmops.recipe.training import TeachSettings

AGREEMENT_ROWS = 32


class Teach:
    """`data`, `model` (the teacher in PyTorch) and, unless that writes, `engine` (its export) → the pool's answers.

    Artifact: `answers.jsonl`, `answers.safetensors`, and `dropped.jsonl` with the reason of each answer not used.
    """

    name: ClassVar[str] = "teach"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")

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
        model = inputs["model"] / "model"
        writer = inputs["engine"] / "model" if "engine" in inputs else model
        tokenizer = Tokenizer.load(writer)
        ask = partial(
            label_pool,
            load_engine(settings.engine, writer),
            tokenizer,
            task,
            batch=settings.batch,
            top_logits=settings.top_logits,
            progress=context.progress,
        )
        answers = ask(rows[:AGREEMENT_ROWS], work=context.work / "first")
        figures: dict[str, float | str] = {}
        if writer is not model:
            agrees = agreement(load_engine("transformers", model), answers, tokenizer, task)
            _check_agreement(agrees, settings, context.progress)
            figures["agreement"] = agrees
        answers += ask(rows[AGREEMENT_ROWS:], work=context.work / "rest")
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
        return {"rows": len(kept), "dropped": len(dropped), "answer_tokens": tokens, **figures}


def _check_agreement(agrees: float, settings: TeachSettings, progress: Progress) -> None:
    """Refuse an export that is another teacher than the one that was fitted.

    Raises:
        SlmopsError: it writes other answers than PyTorch too often.
    """
    progress.note(f"the exported teacher writes the same answer as PyTorch on {agrees:.0%} of a sample")
    if agrees < settings.min_agreement:
        raise SlmopsError(
            f"the exported teacher agrees with PyTorch on {agrees:.0%} of the answers, "
            f"less than teach.min_agreement {settings.min_agreement:.0%}",
            hint="set teach.precision: fp32",
        )
