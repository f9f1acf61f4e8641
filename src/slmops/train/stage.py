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
    from slmops.tasks.base import Task
    from slmops.train.examples import Example
    from slmops.train.objectives.observe import TeacherModel
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
        from slmops.train.kinship import ids_at_teacher
        from slmops.train.objectives.make import refuse_token_by_token

        student, teacher = (Tokenizer.load(inputs[side] / "model") for side in ("student", "teacher"))
        shared = ids_at_teacher(student, teacher) is not None
        if not shared:
            refuse_token_by_token(settings.objective)
        vocabulary = "shared" if shared else "own"
        pair: dict[str, float | str] = {
            "vocabulary": vocabulary,
            "tokens": student.size,
            "tokens_of_teacher": teacher.size,
        }
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
        from slmops.train.kinship import kinship
        from slmops.train.lessons import lessons
        from slmops.train.objectives.base import OF_TEACHER, ONLINE_SPANS
        from slmops.train.objectives.make import all_needs
        from slmops.train.objectives.observe import TeacherModel
        from slmops.train.prepare import check_lengths, fitting

        folder, data, moved = inputs["student"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = _task(data), Tokenizer.load(folder)
        theirs = inputs["teacher"] / "model" if "teacher" in inputs else None
        teachers = Tokenizer.load(theirs) if theirs else None
        kin = kinship(read_kept(inputs["student"]), tokenizer, teachers)
        every = lessons(
            load_answers(inputs["answers"]),
            read_jsonl(data / "train.jsonl"),
            task,
            tokenizer,
            settings.objective,
            kin,
            teacher=teachers,
            max_cut_off=settings.max_cut_off,
        )
        examples = fitting(every.examples, every.names, folder, max_too_long=moved.max_too_long)
        needs = all_needs(settings.objective)
        if theirs and ONLINE_SPANS in needs:
            check_lengths([e.aligned for e in every.examples if e.aligned], every.names, theirs)
        return _train(
            folder,
            examples,
            moved,
            context,
            objective=settings.objective,
            normalise=settings.normalise,
            teacher=TeacherModel(theirs, kin.tokens, kin.layers) if theirs and needs & OF_TEACHER else None,
            rounding=settings.round_to_int4,
            validation=_validation(data, task, tokenizer, moved, folder),
            left_out={"cut_off": every.cut_off, "too_long": len(every.examples) - len(examples)},
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
