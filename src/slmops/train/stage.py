"""Fitting, carving and distilling as stages of a run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.objective import Objective, term_names
from slmops.recipe.settings import Settings
from slmops.recipe.training import Carve, Optimisation, Rounding

if TYPE_CHECKING:
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks.base import Row, Task
    from slmops.teach.answers import Answer
    from slmops.train.examples import Example
    from slmops.train.objectives.observe import TeacherModel
    from slmops.train.prepare import Kinship
    from slmops.train.trainer import Trained

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers")


class FitSettings(Settings):
    """How a model moves, and the grid it is to be on."""

    optimisation: Optimisation
    round_to_int4: Rounding | None = None

    def check_surroundings(self) -> None:
        """Refuse what this process or machine cannot do, before any stage runs.

        Raises:
            BadInput: event files are asked for and TensorBoard is not installed, or a launcher started several of us.
        """
        from slmops.train.events import check_tensorboard

        if self.optimisation.tensorboard:
            check_tensorboard()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise BadInput(
                "a run is one process, and a launcher started several (WORLD_SIZE): they would wait for each other",
                hint="start `slmops run` without the launcher; `slmops.train.trainer.train` is what runs below one",
            )


class Fit:
    """`model` and `data` → `model/`, fine-tuned on the labelled rows."""

    name: ClassVar[str] = "fit"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: FitSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.models.tokenizer import Tokenizer
        from slmops.train.prepare import check_lengths, fitting, reference_examples, unanswered_examples

        folder, data, moved = inputs["model"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = _task(data), Tokenizer.load(folder)
        rows = read_jsonl(data / "train.jsonl")
        every, names = reference_examples(rows, task, tokenizer), [row["id"] for row in rows]
        examples = fitting(every, names, folder, max_too_long=moved.max_too_long)
        # Rows that do not fit would stop the run at a later stage, after the work of this one.
        others = [row for side in ("pool", "test") for row in read_jsonl(data / f"{side}.jsonl")]
        check_lengths(unanswered_examples(others, task, tokenizer), [row["id"] for row in others], folder)
        return _train(
            folder,
            examples,
            moved,
            context,
            rounding=settings.round_to_int4,
            validation=_validation(data, task, tokenizer, moved, folder),
            left_out={"too_long": len(every) - len(examples)},
        )


class CheckCut:
    """`model` (not yet fitted) → `width.json`, how wide it is; refuses a width that it cannot be cut down to.

    Without it, that would come to light when the teacher is fitted and has answered.
    """

    name: ClassVar[str] = "check-cut"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)

    def run(self, inputs: Mapping[str, Path], settings: Carve, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import load_model
        from slmops.models.width import check_width, width_of

        model = load_model(inputs["model"] / "model")
        check_width(model, heads=settings.heads, channels=settings.channels)
        width = asdict(width_of(model))
        (context.out / "width.json").write_text(json.dumps(width) + "\n", encoding="utf-8")
        return width


class PairSettings(Settings):
    """What a student of another model is to imitate."""

    objective: Objective


class CheckPair:
    """`teacher` (not yet fitted) and `student` (another model) → `pair.json`; refuses terms that the two do not allow.

    Without it, that would come to light when the teacher is fitted and has answered.
    """

    name: ClassVar[str] = "check-pair"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(self, inputs: Mapping[str, Path], settings: PairSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.train.objectives.make import refuse_token_by_token
        from slmops.train.prepare import ids_at_teacher

        student, teacher = (Tokenizer.load(inputs[side] / "model") for side in ("student", "teacher"))
        shared = ids_at_teacher(student, teacher) is not None
        if not shared:
            refuse_token_by_token(settings.objective)
        pair = {"vocabulary": "shared" if shared else "own", "tokens": student.size, "tokens_of_teacher": teacher.size}
        (context.out / "pair.json").write_text(json.dumps(pair) + "\n", encoding="utf-8")
        return pair


class CarveStudent:
    """`model` (fitted teacher), `data` and `answers` → `model/`, smaller, and `carve.json` with what was kept.

    With an input `teacher` (the model that answered), `model` is another one, and reads the answers in its own tokens.
    With an input `like` (another carved student) the same layers, heads, channels and tokens are kept and nothing is
    weighed.
    """

    name: ClassVar[str] = "carve"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: Carve, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import load_model, save_model
        from slmops.models.tokenizer import Tokenizer
        from slmops.teach.answers import load_answers
        from slmops.train.cut import choose_and_cut, cut, read_kept, size_of, write_kept

        folder, out = inputs["model"] / "model", context.out / "model"
        model, tokenizer = load_model(folder), Tokenizer.load(folder)
        before = size_of(model)
        if "like" in inputs:
            kept, tokenizer = read_kept(inputs["like"]), Tokenizer.load(inputs["like"] / "model")
            cut(model, kept)
        else:
            data, answers = inputs["data"], load_answers(inputs["answers"])
            ends = Tokenizer.load(inputs["teacher"] / "model").end_ids if "teacher" in inputs else None
            tokenizer, kept = choose_and_cut(
                model,
                tokenizer,
                _task(data),
                data,
                answers,
                settings,
                teachers_ends=ends,
                progress=context.progress,
            )
        after = size_of(model)
        save_model(model, out)
        tokenizer.save(out)
        write_kept(context.out, kept, before, after)
        context.progress.note(
            f"kept layers {kept.layers} of {before['layers']} and {after['tokens']} of {before['tokens']} tokens; "
            f"in each layer {after['heads']} of {before['heads']} key-value heads and "
            f"{after['channels']} of {before['channels']} channels"
        )
        return {**after, "parameters_kept": after["parameters"] / before["parameters"]}


class DistilSettings(FitSettings):
    """How the student moves, and what it imitates."""

    objective: Objective
    normalise: bool
    max_cut_off: float


OBJECTIVE = "objective:"
"""Begins the names of inputs that are the sources of the user's own terms."""


class Distil:
    """`student`, `data` and `answers` → `model/`, trained on the teacher's answers and the labelled rows.

    With terms that ask for more than the teacher's stored probabilities of the student's own tokens, or a student of
    another model, an input `teacher`: the model that answered.
    """

    name: ClassVar[str] = "distil"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: DistilSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.models.tokenizer import Tokenizer
        from slmops.teach.answers import load_answers
        from slmops.train.cut import read_kept
        from slmops.train.examples import Example
        from slmops.train.objectives.base import OF_TEACHER, ONLINE_SPANS
        from slmops.train.objectives.make import all_needs
        from slmops.train.objectives.observe import TeacherModel
        from slmops.train.prepare import check_lengths, fitting, kinship

        folder, data, moved = inputs["student"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = _task(data), Tokenizer.load(folder)
        theirs = Tokenizer.load(inputs["teacher"] / "model") if "teacher" in inputs else None
        kin = kinship(read_kept(inputs["student"]), tokenizer, theirs)
        answers, rows = load_answers(inputs["answers"]), read_jsonl(data / "train.jsonl")
        taught, kept = _taught(answers, task, tokenizer, theirs, kin, settings)
        every = taught + _references(rows, task, tokenizer, theirs, settings, answers[0].top_ids.shape[1])
        names = [answer.id for answer in kept] + [row["id"] for row in rows]
        examples = fitting(every, names, folder, max_too_long=moved.max_too_long)
        teacher, needs = None, all_needs(settings.objective)
        if needs & OF_TEACHER:
            teacher = TeacherModel(inputs["teacher"] / "model", kin.tokens, kin.layers)
        if ONLINE_SPANS in needs:
            read = [Example(e.aligned.prompt, e.aligned.answer) for e in every if e.aligned]
            check_lengths(read, names, inputs["teacher"] / "model")
        return _train(
            folder,
            examples,
            moved,
            context,
            objective=settings.objective,
            normalise=settings.normalise,
            teacher=teacher,
            rounding=settings.round_to_int4,
            validation=_validation(data, task, tokenizer, moved, folder),
            left_out={"cut_off": len(answers) - len(kept), "too_long": len(every) - len(examples)},
        )


def _validation(
    data: Path, task: Task, tokenizer: Tokenizer, settings: Optimisation, folder: Path
) -> Sequence[Example]:
    """The validation rows with their answers, where training is to be stopped by them."""
    from slmops.data.read import read_jsonl
    from slmops.train.prepare import check_lengths, reference_examples

    if settings.stop_early is None:
        return ()
    rows = read_jsonl(data / "validation.jsonl")
    examples = reference_examples(rows, task, tokenizer)
    check_lengths(examples, [row["id"] for row in rows], folder)
    return examples


def _taught(
    answers: Sequence[Answer],
    task: Task,
    tokenizer: Tokenizer,
    teacher: Tokenizer | None,
    kin: Kinship,
    settings: DistilSettings,
) -> tuple[list[Example], list[Answer]]:
    """The teacher's whole answers in the student's tokens, and these answers.

    Raises:
        BadInput: the student has a vocabulary of its own, and a term compares the two models token by token; or too
            many answers were cut off.
    """
    from slmops.train.alignment import align_answers
    from slmops.train.objectives.base import SPANS
    from slmops.train.objectives.make import all_needs, refuse_token_by_token
    from slmops.train.prepare import finished, retold_examples, taught_examples

    if kin.shared:
        examples = taught_examples(answers, task, tokenizer, kin.tokens)
    else:
        refuse_token_by_token(settings.objective)
        assert teacher is not None  # noqa: S101
        examples = retold_examples(answers, task, tokenizer, teacher.end_ids)
    whole = finished(examples, tokenizer, max_cut_off=settings.max_cut_off)
    examples, answers = [examples[i] for i in whole], [answers[i] for i in whole]
    if teacher and all_needs(settings.objective) & SPANS:
        examples = align_answers(examples, answers, task, tokenizer, teacher)
    return examples, answers


def _references(
    rows: Sequence[Row],
    task: Task,
    tokenizer: Tokenizer,
    teacher: Tokenizer | None,
    settings: DistilSettings,
    stored_k: int,
) -> list[Example]:
    """The labelled rows, with what the terms need of them."""
    from slmops.train.alignment import align_references
    from slmops.train.objectives.base import SPANS, STORED
    from slmops.train.objectives.make import all_needs
    from slmops.train.prepare import reference_examples

    needs = all_needs(settings.objective)
    examples = reference_examples(rows, task, tokenizer, soft_k=stored_k if STORED in needs else 0)
    if teacher and needs & SPANS:
        examples = align_references(examples, rows, task, tokenizer, teacher, stored_k=stored_k)
    return examples


def _train(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    context: Context,
    *,
    objective: Objective | None = None,
    normalise: bool = False,
    teacher: TeacherModel | None = None,
    rounding: Rounding | None,
    validation: Sequence[Example],
    left_out: Mapping[str, int],
) -> Mapping[str, float | str]:
    from slmops.models.source import save_model
    from slmops.train.events import FOLDER
    from slmops.train.trainer import train

    for reason, rows in left_out.items():
        if rows:
            context.progress.note(f"warning: left out {rows} rows: {reason.replace('_', ' ')}")
    if settings.tensorboard:
        context.progress.note(f"to look on: tensorboard --logdir {context.work / FOLDER}")
    trained: Trained = train(
        folder,
        examples,
        settings,
        validation=validation,
        objective=objective,
        normalise=normalise,
        teacher=teacher,
        rounding=rounding,
        work=context.work,
        seed=context.seed,
        progress=context.progress,
        title=f"train on {len(examples)} rows",
    )
    save_model(trained.model, context.out / "model", tokenizer_from=folder)
    (context.out / "history.json").write_text(json.dumps(trained.history) + "\n", encoding="utf-8")
    if settings.tensorboard:
        shutil.copytree(context.work / FOLDER, context.out / FOLDER)
    last, names = trained.history[-1], term_names(objective) if objective else ["text"]
    return {
        **{f"loss_{name}": last[name] for name in names},
        "train_tokens": trained.tokens,
        "train_seconds": trained.seconds,
        "tokens_per_s": trained.tokens / max(trained.seconds, 1e-9),
        **{f"left_out_{reason}": rows for reason, rows in left_out.items() if rows},
        **trained.figures,
    }


def _task(data: Path) -> Task:
    from slmops.tasks import from_description

    return from_description(json.loads((data / "task.json").read_text(encoding="utf-8")))
