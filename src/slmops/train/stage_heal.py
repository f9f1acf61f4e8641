"""Healing as a stage of a run, and what refuses it before the teacher is fitted and has answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.objective import Layered, Objective, term_names
from slmops.train.kept import train_and_save
from slmops.train.stage import LIBRARIES, FitSettings

if TYPE_CHECKING:
    from slmops.train.heal import Blocks

TEXT = "text:"
"""Begins the names of inputs that are files of text."""


class HealSettings(FitSettings):
    """How the student moves, what it imitates, and on how much text; `optimisation.epochs` are the most passes."""

    objective: Objective
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
        figures = train_and_save(
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
    from slmops.tasks import task_of
    from slmops.train.heal import check_length, choose_blocks, text_blocks

    length = settings.length
    check_length(model, length)
    every = text_blocks(
        [path for name, path in sorted(inputs.items()) if name.startswith(TEXT)],
        inputs["data"],
        task_of(inputs["data"]),
        Tokenizer.load(model),
        column=settings.column,
        length=length,
        progress=context.progress,
    )
    most = settings.optimisation.epochs
    return choose_blocks(every, tokens=settings.tokens, most_passes=most, length=length, seed=context.seed)
