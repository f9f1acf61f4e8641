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
from slmops.recipe.objective import Layered, Objective, term_names
from slmops.recipe.settings import Settings
from slmops.recipe.training import Carve, Head, OnPolicy, Optimisation, Rounding

if TYPE_CHECKING:
    from slmops.models.tag_head import TagHead
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks.base import Task
    from slmops.train.examples import Example
    from slmops.train.heal import Blocks
    from slmops.train.kinship import Kinship
    from slmops.train.lessons import Lessons
    from slmops.train.objectives.observe import TeacherModel
    from slmops.train.on_policy import OwnAnswers
    from slmops.train.trainer import Trained

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers")


class FitSettings(Settings):
    """How a model moves, and the grid it is to be on."""

    optimisation: Optimisation
    round_to_int4: Rounding | None = None
    head: Head = "language"

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
        from slmops.train.lessons import labelled_examples
        from slmops.train.prepare import check_lengths, fitting, unanswered_examples

        folder, data, moved = inputs["model"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = _task(data), Tokenizer.load(folder)
        rows = read_jsonl(data / "train.jsonl")
        every, names = labelled_examples(rows, task, tokenizer, settings.head)
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
            head=_head(settings.head, task, tokenizer, folder),
            validation=_validation(data, task, tokenizer, moved, folder, settings.head),
            left_out={"not_in_text": len(rows) - len(every), "too_long": len(every) - len(examples)},
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


class CheckMarks:
    """`data` → `marks.json`, how many labelled rows a student that labels can learn; refuses too few.

    Without it, that would come to light when the teacher is fitted and has answered.
    """

    name: ClassVar[str] = "check-marks"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def run(
        self,
        inputs: Mapping[str, Path],
        settings: Settings,  # noqa: ARG002 - there are none
        context: Context,
    ) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.train.tagged import check_rows

        rows = read_jsonl(inputs["data"] / "train.jsonl")
        found = {"rows": len(rows), "not_in_text": check_rows(rows, _task(inputs["data"]))}
        (context.out / "marks.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        return found


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
    on_policy: OnPolicy | None = None
    max_cut_off: float


OBJECTIVE = "objective:"
"""Begins the names of inputs that are the sources of the user's own terms."""

TEXT = "text:"
"""Begins the names of inputs that are files of text."""


class HealSettings(FitSettings):
    """How the student moves, what it imitates, and on how much text; `optimisation.epochs` are the most passes."""

    objective: Objective
    normalise: bool
    column: str
    tokens: int
    length: int
    every: int


class CheckHeal:
    """`model` (not yet fitted), `data` and `text:…` files → `text.json`; refuses what healing could not be done with.

    Without it, that would come to light when the teacher is fitted and has answered.
    """

    name: ClassVar[str] = "check-heal"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(self, inputs: Mapping[str, Path], settings: HealSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.train.objectives.layers import in_range

        folder = inputs["model"] / "model"
        layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        for term, name in zip(settings.objective, term_names(settings.objective), strict=True):
            if isinstance(term, Layered):
                in_range(term.teacher_layers or [], layers, f"student.heal.objective: {name}.teacher_layers", "teacher")
        if settings.optimisation.freeze_layers >= layers:
            raise BadInput(
                f"student.heal.freeze_layers {settings.optimisation.freeze_layers} leaves nothing to heal: the model "
                f"has {layers} layers",
                hint=f"set it to {layers - 1} at most",
            )
        blocks = _blocks(inputs, folder, settings, context)
        if blocks.tokens < settings.tokens:
            context.progress.note(
                f"warning: {blocks.text_tokens:,} tokens of text make {blocks.tokens:,} in {blocks.passes:g} passes; "
                f"student.heal.tokens asks for {settings.tokens:,}"
            )
        text = {"text_tokens": blocks.text_tokens, "passes": blocks.passes}
        (context.out / "text.json").write_text(json.dumps(text) + "\n", encoding="utf-8")
        return text


class Heal:
    """`student` (carved), `teacher` (what it was carved from), `data` and `text:…` files → `student`, healed.

    Without files the text is that of the rows in `data`. Beside `model/` and `history.json` the artifact has the
    `carve.json` of the student and `heal.json`, the figures: among them the tokens of the text, the passes over it, and
    the distance from the teacher before and after, on blocks that were not trained on.
    """

    name: ClassVar[str] = "heal"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: HealSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import load_model
        from slmops.train.cut import carry_kept, read_kept
        from slmops.train.heal import distance
        from slmops.train.objectives.observe import TeacherModel

        folder, kept, moved = inputs["student"] / "model", read_kept(inputs["student"]), settings.optimisation
        blocks = _blocks(inputs, folder, settings, context)
        teacher = TeacherModel(inputs["teacher"] / "model", kept.tokens, kept.layers)
        before = distance(load_model(folder), teacher, blocks.held_out, batch_tokens=moved.batch_tokens)
        figures = _train(
            folder,
            blocks.train,
            moved.model_copy(update={"epochs": blocks.passes}),
            context,
            objective=settings.objective,
            normalise=settings.normalise,
            compare_every=settings.every,
            teacher=teacher,
            teacher_reads_once=True,
            rounding=settings.round_to_int4,
            validation=blocks.held_out if moved.stop_early else (),
            title=f"heal on {len(blocks.train)} blocks of text",
        )
        healed = load_model(context.out / "model")
        after = distance(healed, teacher, blocks.held_out, batch_tokens=moved.batch_tokens)
        carry_kept(inputs["student"], context.out)
        figures |= {
            "text_tokens": blocks.text_tokens,
            "passes": blocks.passes,
            "kl_before": before.kl,
            "kl_after": after.kl,
            "perplexity_before": before.perplexity,
            "perplexity_after": after.perplexity,
            "perplexity_uncut": after.uncut_perplexity,
        }
        (context.out / "heal.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
        return figures


def _blocks(inputs: Mapping[str, Path], model: Path, settings: HealSettings, context: Context) -> Blocks:
    """The text in the tokens of the model in folder `model`, as blocks to train on and to measure on."""
    from slmops.models.tokenizer import Tokenizer
    from slmops.train.heal import check_length, choose_blocks, text_blocks

    length = settings.length
    check_length(model, length)
    every = text_blocks(
        [path for name, path in sorted(inputs.items()) if name.startswith(TEXT)],
        inputs["data"],
        _task(inputs["data"]),
        Tokenizer.load(model),
        column=settings.column,
        length=length,
        progress=context.progress,
    )
    most = settings.optimisation.epochs
    return choose_blocks(every, tokens=settings.tokens, most_passes=most, length=length, seed=context.seed)


class Distil:
    """`student`, `data` and `answers` → `model/`, trained on the teacher's answers and the labelled rows.

    With terms that ask for more than the teacher's stored probabilities of the student's own tokens, or a student of
    another model, an input `teacher`: the model that answered.
    """

    name: ClassVar[str] = "distil"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: DistilSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.train.cut import read_kept
        from slmops.train.kinship import kinship
        from slmops.train.objectives.base import OF_TEACHER, ONLINE_SPANS
        from slmops.train.objectives.make import all_needs
        from slmops.train.objectives.observe import TeacherModel
        from slmops.train.prepare import check_lengths, fitting

        folder, data, moved = inputs["student"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = _task(data), Tokenizer.load(folder)
        theirs = inputs["teacher"] / "model" if "teacher" in inputs else None
        teachers = Tokenizer.load(theirs) if theirs else None
        kin = kinship(read_kept(inputs["student"]), tokenizer, teachers)
        every = _lessons(inputs, settings, task, tokenizer, kin, teachers)
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
            on_policy=_own_answers(settings.on_policy, task, tokenizer),
            teacher=TeacherModel(theirs, kin.tokens, kin.layers) if theirs and needs & OF_TEACHER else None,
            rounding=settings.round_to_int4,
            head=_head(settings.head, task, tokenizer, folder),
            validation=_validation(data, task, tokenizer, moved, folder, settings.head),
            left_out={**every.left_out, "too_long": len(every.examples) - len(examples)},
        )


def _lessons(
    inputs: Mapping[str, Path],
    settings: DistilSettings,
    task: Task,
    tokenizer: Tokenizer,
    kin: Kinship,
    teacher: Tokenizer | None,
) -> Lessons:
    """The teacher's answers and the labelled rows as the student is to learn them."""
    from slmops.data.read import read_jsonl
    from slmops.teach.answers import load_answers
    from slmops.train.lessons import lessons, marked_lessons

    answers, rows = load_answers(inputs["answers"]), read_jsonl(inputs["data"] / "train.jsonl")
    if settings.head == "tags":
        return marked_lessons(answers, rows, task, tokenizer)
    return lessons(
        answers, rows, task, tokenizer, settings.objective, kin, teacher=teacher, max_cut_off=settings.max_cut_off
    )


def _head(head: Head, task: Task, tokenizer: Tokenizer, folder: Path) -> TagHead | None:
    """What takes the place of the head of the model in `folder`, if anything does."""
    from slmops.train.tagged import new_head

    if head == "language":
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return new_head(task, tokenizer, config["hidden_size"])


def _validation(
    data: Path, task: Task, tokenizer: Tokenizer, settings: Optimisation, folder: Path, head: Head
) -> Sequence[Example]:
    """The validation rows with their answers, where training is to be stopped by them."""
    from slmops.data.read import read_jsonl
    from slmops.train.lessons import labelled_examples
    from slmops.train.prepare import check_lengths

    if settings.stop_early is None:
        return ()
    examples, names = labelled_examples(read_jsonl(data / "validation.jsonl"), task, tokenizer, head)
    check_lengths(examples, names, folder)
    return examples


def _own_answers(settings: OnPolicy | None, task: Task, tokenizer: Tokenizer) -> OwnAnswers | None:
    """How the student writes, where it is to."""
    from slmops.train.on_policy import OwnAnswers

    if settings is None:
        return None
    longest = settings.max_tokens or task.max_answer_tokens
    return OwnAnswers(settings.fraction, settings.temperature, longest, tokenizer.end_ids)


def _train(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    context: Context,
    *,
    objective: Objective | None = None,
    normalise: bool = False,
    compare_every: int = 1,
    on_policy: OwnAnswers | None = None,
    teacher: TeacherModel | None = None,
    teacher_reads_once: bool = False,
    rounding: Rounding | None,
    head: TagHead | None = None,
    validation: Sequence[Example],
    left_out: Mapping[str, int] | None = None,
    title: str | None = None,
) -> dict[str, float | str]:
    from slmops.models.source import save_model
    from slmops.train.events import FOLDER
    from slmops.train.trainer import train

    missing = {reason: rows for reason, rows in (left_out or {}).items() if rows}
    for reason, rows in missing.items():
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
        compare_every=compare_every,
        on_policy=on_policy,
        teacher=teacher,
        teacher_reads_once=teacher_reads_once,
        rounding=rounding,
        head=head,
        work=context.work,
        seed=context.seed,
        progress=context.progress,
        title=title or f"train on {len(examples)} rows",
    )
    save_model(trained.model, context.out / "model", tokenizer_from=folder)
    (context.out / "history.json").write_text(json.dumps(trained.history) + "\n", encoding="utf-8")
    if settings.tensorboard:
        shutil.copytree(context.work / FOLDER, context.out / FOLDER)
    names = term_names(objective) if objective else ["text"]
    # Of each the last that is known: the last entry may be of the student's own answers alone, and lack some.
    last = {name: entry[name] for entry in trained.history for name in names if name in entry}
    return {
        **{f"loss_{name}": value for name, value in last.items()},
        "train_tokens": trained.tokens,
        "train_seconds": trained.seconds,
        "tokens_per_s": trained.tokens / max(trained.seconds, 1e-9),
        **{f"left_out_{reason}": rows for reason, rows in missing.items()},
        **trained.figures,
    }


def _task(data: Path) -> Task:
    from slmops.tasks import from_description

    return from_description(json.loads((data / "task.json").read_text(encoding="utf-8")))
