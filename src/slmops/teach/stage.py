"""The teachers' answers as stages of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.stage import Context, one_by_one
from slmops.progress import Progress
from slmops.recipe.data import Column
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import Asking
from slmops.teach.routing import Routes, by_field, by_label
from slmops.teach.several import in_one_vocabulary, numbers_of, tokenizers_of, written

if TYPE_CHECKING:
    from slmops.engines.base import Top
    from slmops.tasks import Row
    from slmops.teach.answers import Answer

AGREEMENT_ROWS = 32


class Teach:
    """`data`, `model` (the teacher in PyTorch) and, unless that writes, `engine` (its export) → the pool's answers.

    Artifact: `answers.jsonl`, `answers.safetensors`, and `dropped.jsonl` with the reason of each answer not used.
    """

    name: ClassVar[str] = "teach"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: Asking, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.teach.answers import save_answers
        from slmops.teach.label import agreement, formed, label_pool, label_pool_by

        task = task_of(inputs["data"])
        rows = read_jsonl(inputs["data"] / "pool.jsonl")
        if not rows:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        model = inputs["model"] / "model"
        writer = inputs["engine"] / "model" if "engine" in inputs else model
        tokenizer = Tokenizer.load(writer)
        # What is spread is loaded where it is done.
        by: Callable[..., list[Answer]] = (
            partial(label_pool, load_engine(settings.engine, writer, gpu=True))
            if context.spread is one_by_one
            else partial(label_pool_by, context.spread, settings.engine, writer)
        )
        ask = partial(
            by,
            tokenizer,
            task,
            batch=settings.batch,
            top_logits=settings.top_logits,
            progress=context.progress,
        )
        answers = ask(rows[:AGREEMENT_ROWS], work=context.work / "first")
        figures: dict[str, float | str] = {}
        if writer is not model:
            agrees = agreement(load_engine("transformers", model, gpu=True), answers, tokenizer, task)
            _check_agreement(agrees, settings, context.progress)
            figures["agreement"] = agrees
        answers += ask(rows[AGREEMENT_ROWS:], work=context.work / "rest")
        kept, dropped = formed(rows, answers, task, mend="fit the teacher longer (its `fit.epochs`)")
        save_answers(context.out, kept)
        write_jsonl(context.out / "dropped.jsonl", dropped)
        tokens = sum(len(answer.tokens) for answer in answers)
        return {"rows": len(kept), "dropped": len(dropped), "answer_tokens": tokens, **figures}


def _check_agreement(agrees: float, settings: Asking, progress: Progress) -> None:
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


class CheckTeachersSettings(Settings):
    """The teachers' names in the order of the recipe, and the terms of the loss that need stored probabilities."""

    names: list[str]
    stored: list[str]


class CheckTeachers:
    """`model_1`, `model_2`, … (not yet fitted) → `vocabularies.json`, whether all have the first one's vocabulary.

    Refuses terms of the loss for which they must; without it, that would come to light when all have answered.
    """

    name: ClassVar[str] = "check-teachers"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(
        self, inputs: Mapping[str, Path], settings: CheckTeachersSettings, context: Context
    ) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.teach.combine import share_vocabulary

        first, *others = [Tokenizer.load(inputs[f"model_{n}"] / "model") for n in numbers_of(inputs, "model_")]
        own = [name for name, one in zip(settings.names[1:], others, strict=True) if not share_vocabulary(first, one)]
        if own and settings.stored:
            raise BadInput(
                f"the teacher {own[0]} has another vocabulary than {settings.names[0]}, or ends an answer otherwise: "
                f"no probabilities can be kept that train.objective could learn from ({settings.stored[0]})",
                hint="set train.objective: {kind: text}, or take teachers of one vocabulary and one chat_template",
            )
        (context.out / "vocabularies.json").write_text(json.dumps({"shared": not own}) + "\n", encoding="utf-8")
        return {"teachers": len(settings.names), "other_vocabularies": len(own)}


class RouteSettings(Routes):
    """As `Routes`, the number of the teacher whose rows are wanted, and the column with the text."""

    teacher_number: int
    input: Column


class Route:
    """`data`, and `pool` (the file) or `answers` (the first teacher's) → one teacher's rows of the pool.

    Writes `pool.jsonl` and `task.json`, so that a teacher answers them as it would all.
    """

    name: ClassVar[str] = "route"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(self, inputs: Mapping[str, Path], settings: RouteSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.tasks import task_of
        from slmops.teach.answers import load_answers

        task, rows = task_of(inputs["data"]), read_jsonl(inputs["data"] / "pool.jsonl")
        if "pool" in inputs:
            told = task.describe()
            kind, said = told["kind"], told["instruction"]
            teachers = by_field(inputs["pool"], settings, input=settings.input, kind=kind, instruction=said)
        else:
            teachers = by_label(rows, load_answers(inputs["answers"]), task, settings)
        mine = [row for row in rows if teachers.get(row["id"]) == settings.teacher_number]
        if not mine:
            raise BadInput(
                f"teach.combine routes no row of the pool to teacher {settings.teacher_number}",
                hint="take it out of the recipe, or mend its routes",
            )
        (context.out / "task.json").write_bytes((inputs["data"] / "task.json").read_bytes())
        return {"rows": write_jsonl(context.out / "pool.jsonl", mine)}


class Join:
    """`data`, and of each teacher N `answers_N`, `engine_N` and, from the second on, `rows_N` → answers as of one.

    Each row has the answer of its own teacher; what is in no other's rows is the first's.
    """

    name: ClassVar[str] = "join"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.teach.answers import load_answers

        numbers = numbers_of(inputs, "answers_")
        owner = {row["id"]: n for n in numbers[1:] for row in read_jsonl(inputs[f"rows_{n}"] / "pool.jsonl")}
        given: dict[str, tuple[int, Answer]] = {}
        dropped: list[Row] = []
        for n in numbers:
            folder = inputs[f"answers_{n}"]
            given |= {a.id: (n - 1, a) for a in load_answers(folder) if owner.get(a.id, 1) == n}
            dropped += [row for row in read_jsonl(folder / "dropped.jsonl") if owner.get(row["id"], 1) == n]
        pool = read_jsonl(inputs["data"] / "pool.jsonl")
        chosen = [given[row["id"]] for row in pool if row["id"] in given]
        texts, _ = in_one_vocabulary(chosen, tokenizers_of(inputs))
        return written(inputs, context.out, texts, dropped, [teacher for teacher, _ in chosen])


class MixSettings(Settings):
    """What each teacher counts, in the order of the recipe, and how they are asked."""

    weights: list[float]
    engine: Literal["onnxruntime-genai", "transformers"] = "onnxruntime-genai"
    batch: int
    top_logits: int


class Mix:
    """`data`, and of each teacher N `answers_N` and `engine_N` → answers as of one.

    Of each row the text with most weight behind it, and where all have one vocabulary the mixture of their
    probabilities at each of its tokens; see `slmops.teach.combine`. Each draw of a teacher has its share of the weight.
    """

    name: ClassVar[str] = "mix"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: MixSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.engines import load_engine
        from slmops.tasks import task_of
        from slmops.teach.answers import by_id
        from slmops.teach.combine import elect, opinions, together
        from slmops.teach.draws import voters

        task, tokenizers = task_of(inputs["data"]), tokenizers_of(inputs)

        def read(teacher: int, others: Sequence[Answer]) -> list[Top]:
            if not others:
                return []
            return opinions(
                load_engine(settings.engine, inputs[f"engine_{teacher + 1}"] / "model", gpu=True),
                tokenizers[teacher],
                task,
                others,
                batch=settings.batch,
                top_logits=settings.top_logits,
                progress=context.progress,
            )

        folders = [inputs[f"answers_{n}"] for n in numbers_of(inputs, "answers_")]
        asked = voters(folders, settings.weights)
        draws, weights = [by_id(voter.folder) for voter in asked], [voter.weight for voter in asked]
        pool = read_jsonl(inputs["data"] / "pool.jsonl")
        elected = [elect([answers.get(row["id"]) for answers in draws], weights, task) for row in pool]
        chosen = [
            (asked[i].teacher, draws[i][row["id"]]) for row, i in zip(pool, elected, strict=True) if i is not None
        ]
        texts, shared = in_one_vocabulary(chosen, tokenizers)
        if shared and settings.top_logits:
            texts = together(texts, [by_id(folder) for folder in folders], settings.weights, read)
        answered = {text.id for text in texts}
        dropped = [row for row in read_jsonl(inputs["answers_1"] / "dropped.jsonl") if row["id"] not in answered]
        return written(inputs, context.out, texts, dropped, [teacher for teacher, _ in chosen])
