"""Fitting, carving and distilling as stages of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.objective import Objective, TextTerm
from slmops.recipe.own import CallbackSettings
from slmops.recipe.settings import Settings
from slmops.recipe.student import Carve, Head
from slmops.recipe.training import OnPolicy, Optimisation, Rounding, Together
from slmops.recipe.tuning import Adapter
from slmops.train.kept import train_and_save

if TYPE_CHECKING:
    from slmops.models.tag_head import TagHead
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks.base import Task
    from slmops.train.examples import Example
    from slmops.train.forecast import Forecast
    from slmops.train.kinship import Kinship
    from slmops.train.lessons import Lessons
    from slmops.train.on_policy import OwnAnswers

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers")


class FitSettings(Settings):
    """How a model moves, which of its weights, the grid it is to be on, and by which loss: cross-entropy where None."""

    # How many train it does not change what is learned.
    unkeyed: ClassVar[Mapping[str, Any]] = {"together": True}

    optimisation: Optimisation
    together: Together = Together()
    adapter: Adapter | None = None
    round_to_int4: Rounding | None = None
    head: Head = "language"
    objective: Objective | None = None
    callbacks: list[CallbackSettings] = Field(default_factory=list)
    normalise: bool = False

    @property
    def processes(self) -> int:
        """That train it together."""
        if self.together.processes == 1:
            return 1
        from slmops.train.processes import how_many

        return how_many(self.together, self.optimisation.batches_per_step)

    @property
    def libraries(self) -> tuple[str, ...]:
        """What an adapter is made with."""
        if self.adapter is None:
            return ()
        return ("peft", "bitsandbytes") if self.adapter.method == "qlora" else ("peft",)

    @property
    def elsewhere(self) -> Mapping[str, str]:
        """What Olive trains with, in the environment where it is."""
        if self.adapter is None or self.adapter.backend != "olive":
            return {}
        from slmops.olive.environment import olive_versions

        needed = ("bitsandbytes",) if self.adapter.method == "qlora" else ()
        return {f"olive:{name}": version for name, version in olive_versions(*needed).items()}

    def check_surroundings(self) -> None:
        """Refuse what this process or machine cannot do, before any stage runs.

        Raises:
            BadInput: event files are asked for and TensorBoard is not installed, four bits and bitsandbytes is not, or
                a launcher started several of us.
        """
        from slmops.models.adapters.four_bit import check_four_bits
        from slmops.train.events import check_tensorboard

        if self.together.fsdp:
            self._check_sharding()

        if self.adapter and self.adapter.method == "qlora":
            check_four_bits()

        if self.optimisation.tensorboard:
            check_tensorboard()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise BadInput(
                "a run is one process, and a launcher started several (WORLD_SIZE): they would wait for each other",
                hint="start `slmops run` without the launcher, and set `train.processes`; "
                "`slmops.train.trainer.train` is what runs below one",
            )

    def _check_sharding(self) -> None:
        from slmops.train.sharding import check_sharding

        check_sharding(
            self.processes,
            self.optimisation,
            self.objective or [TextTerm()],
            rounding=self.round_to_int4,
            normalise=self.normalise,
            labels=self.head != "language",
            adapter=self.adapter,
        )


class FineTuneSettings(FitSettings):
    """How a model as it comes is fine-tuned, and whether it is asked what it forgets."""

    measures_forgetting: bool


GENERAL = "general_text"
"""The name of the input that is a general text; without one the model writes it."""


class Fit:
    """`model` and `data` → `model/`, fine-tuned on the labelled rows; and `adapter/`, where one was trained."""

    name: ClassVar[str] = "fit"
    version: ClassVar[int] = 8
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: FitSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.train.class_weights import weighed
        from slmops.train.contrast import comparable
        from slmops.train.lessons import classes_of, labelled_examples, texts_of
        from slmops.train.prepare import check_lengths, fitting, unanswered_examples

        folder, data, moved = inputs["model"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = task_of(data), Tokenizer.load(folder)
        rows = read_jsonl(data / "train.jsonl")
        every, names = labelled_examples(rows, task, tokenizer, settings.head)
        if settings.objective:
            known = set(names)
            kept = [row for row in rows if row["id"] in known]
            classes, texts = classes_of((), kept, task), texts_of((), kept, task)
            every = weighed(every, classes, settings.objective)
            every = comparable(every, classes, texts, tokenizer, settings.objective)
        examples = fitting(every, names, folder, max_too_long=moved.max_too_long)
        # Rows that do not fit would stop the run at a later stage, after the work of this one.
        others = [row for side in ("pool", "test") for row in read_jsonl(data / f"{side}.jsonl")]
        check_lengths(unanswered_examples(others, task, tokenizer), [row["id"] for row in others], folder)
        return train_and_save(
            folder,
            examples,
            moved,
            context,
            objective=settings.objective,
            rounding=settings.round_to_int4,
            head=_head(settings.head, task, tokenizer, folder),
            adapter=settings.adapter,
            fsdp=settings.together.fsdp,
            callbacks=settings.callbacks,
            validation=validation_of(data, task, tokenizer, settings, folder),
            measures_forgetting=isinstance(settings, FineTuneSettings) and settings.measures_forgetting,
            general_text=inputs.get(GENERAL),
            left_out={"not_in_text": len(rows) - len(every), "too_long": len(every) - len(examples)},
        )


def expected(folder: Path, data: Path, settings: FitSettings, *, seed: int) -> Forecast:
    """What `Fit` of the model in `folder` on the rows in `data` is expected to take.

    Raises:
        BadInput: rows are too long for the model, or its layers or the adapter cannot be had.
    """
    from slmops.data.read import read_jsonl
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import task_of
    from slmops.train.forecast import forecast
    from slmops.train.lessons import labelled_examples
    from slmops.train.prepare import fitting

    moved = settings.optimisation
    rows, task, tokenizer = read_jsonl(data / "train.jsonl"), task_of(data), Tokenizer.load(folder)
    every, names = labelled_examples(rows, task, tokenizer, settings.head)
    examples = fitting(every, names, folder, max_too_long=moved.max_too_long)
    shared_out = settings.together.fsdp is not None
    return forecast(
        folder, examples, moved, settings.adapter, seed=seed, processes=settings.processes, shared_out=shared_out
    )


class CarveStudent:
    """`model` (fitted teacher), `data` and `answers` → `model/`, smaller, and `carve.json` with what was kept.

    With an input `teacher` (the model that answered), `model` is another one, and reads the answers in its own tokens.
    With an input `like` (another carved student) the same layers, heads, channels and tokens are kept and nothing is
    weighed.
    """

    name: ClassVar[str] = "carve"
    version: ClassVar[int] = 5
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: Carve, context: Context) -> Mapping[str, float | str]:
        from slmops.models.source import load_model, save_model
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
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
                task_of(data),
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
    on_policy: OnPolicy | None = None
    max_cut_off: float


OBJECTIVE = "objective:"
"""Begins the names of inputs that are the sources of the user's own terms."""

CALLBACK = "callback:"
"""Likewise, of callbacks."""


class Distil:
    """`student`, `data` and `answers` → `model/`, trained on the teacher's answers and the labelled rows.

    With terms that ask for more than the teacher's stored probabilities of the student's own tokens, a student that
    labels, or one of another model, an input `teacher`: the model that answered. Where an adapter was trained, it is
    also in `adapter/`.
    """

    name: ClassVar[str] = "distil"
    version: ClassVar[int] = 9
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: DistilSettings, context: Context) -> Mapping[str, float | str]:
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.train.objectives.base import OF_TEACHER, ONLINE_SPANS
        from slmops.train.objectives.make import all_needs
        from slmops.train.objectives.observe import TeacherModel
        from slmops.train.prepare import check_lengths, fitting

        folder, data, moved = inputs["student"] / "model", inputs["data"], settings.optimisation
        task, tokenizer = task_of(data), Tokenizer.load(folder)
        theirs = inputs["teacher"] / "model" if "teacher" in inputs else None
        every, kin = lessons_of(inputs, settings)
        examples = fitting(every.examples, every.names, folder, max_too_long=moved.max_too_long)
        needs = all_needs(settings.objective)
        if theirs and ONLINE_SPANS in needs:
            check_lengths([e.aligned for e in every.examples if e.aligned], every.names, theirs)
        return train_and_save(
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
            adapter=settings.adapter,
            fsdp=settings.together.fsdp,
            callbacks=settings.callbacks,
            validation=validation_of(data, task, tokenizer, settings, folder),
            left_out={**every.left_out, "too_long": len(every.examples) - len(examples)},
        )


def lessons_of(inputs: Mapping[str, Path], settings: DistilSettings) -> tuple[Lessons, Kinship]:
    """The teacher's answers and the labelled rows as the carved `student` is to learn them, and what it kept."""
    from slmops.data.read import read_jsonl
    from slmops.models.tokenizer import Tokenizer
    from slmops.tasks import task_of
    from slmops.teach.answers import load_answers
    from slmops.train.cut import read_kept
    from slmops.train.kinship import kinship
    from slmops.train.lessons import lessons, marked_lessons

    answers, rows = load_answers(inputs["answers"]), read_jsonl(inputs["data"] / "train.jsonl")
    task, tokenizer = task_of(inputs["data"]), Tokenizer.load(inputs["student"] / "model")
    teacher = Tokenizer.load(inputs["teacher"] / "model") if "teacher" in inputs else None
    kin = kinship(read_kept(inputs["student"]), tokenizer, teacher)
    if settings.head == "tags":
        assert teacher is not None  # noqa: S101 - the plan gives it
        return marked_lessons(answers, rows, task, tokenizer, settings.objective, teacher), kin
    objective, most = settings.objective, settings.max_cut_off
    return lessons(answers, rows, task, tokenizer, objective, kin, teacher=teacher, max_cut_off=most), kin


def _head(head: Head, task: Task, tokenizer: Tokenizer, folder: Path) -> TagHead | None:
    """What takes the place of the head of the model in `folder`, if anything does."""
    from slmops.train.tagged import new_head

    if head == "language":
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return new_head(task, tokenizer, config["hidden_size"])


def validation_of(
    data: Path, task: Task, tokenizer: Tokenizer, settings: FitSettings, folder: Path
) -> Sequence[Example]:
    """The validation rows with their answers, where training is stopped by them or an adapter is compared on them."""
    from slmops.data.read import read_jsonl
    from slmops.train.lessons import labelled_examples
    from slmops.train.prepare import check_lengths

    if settings.optimisation.stop_early is None and settings.adapter is None:
        return ()
    examples, names = labelled_examples(read_jsonl(data / "validation.jsonl"), task, tokenizer, settings.head)
    check_lengths(examples, names, folder)
    return examples


def _own_answers(settings: OnPolicy | None, task: Task, tokenizer: Tokenizer) -> OwnAnswers | None:
    """How the student writes, where it is to."""
    from slmops.train.on_policy import OwnAnswers

    if settings is None:
        return None
    longest = settings.max_tokens or task.max_answer_tokens
    return OwnAnswers(settings.fraction, settings.temperature, longest, tokenizer.end_ids)
