"""Training for a stage: what comes out goes into its artifact, with what it took to get there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slmops.pipeline.stage import Context, Helped
from slmops.progress import Progress
from slmops.recipe.compress import CompressSettings
from slmops.recipe.objective import Objective, term_names
from slmops.recipe.own import CallbackSettings
from slmops.recipe.training import Fsdp, Optimisation, Rounding
from slmops.recipe.tuning import Adapter

if TYPE_CHECKING:
    from slmops.models.tag_head import TagHead
    from slmops.train.examples import Example
    from slmops.train.forgetting import General
    from slmops.train.objectives.observe import TeacherModel
    from slmops.train.on_policy import OwnAnswers
    from slmops.train.trained import Trained


def train_and_save(
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
    rounding: Rounding | CompressSettings | None,
    head: TagHead | None = None,
    adapter: Adapter | None = None,
    fsdp: Fsdp | None = None,
    callbacks: Sequence[CallbackSettings] = (),
    validation: Sequence[Example],
    left_out: Mapping[str, int] | None = None,
    title: str | None = None,
    measures_forgetting: bool = False,
    general_text: Path | None = None,
) -> dict[str, float | str]:
    """Train the model in `folder`, and write `model/`, `adapter/` where one was made, `history.json` and
    `training.json` to `context.out`; see `slmops.train.trainer.train`.

    Args:
        left_out: rows that are not among `examples`, by the reason, which is told.
        title: of the progress.
        measures_forgetting: read a general text before and after; see `slmops.train.forgetting`.
        general_text: that text; None has the model write it.

    Returns:
        The stage's figures.

    Raises:
        Helped: in all processes but the first of those that trained together.
    """
    from slmops.models.adapters.files import ADAPTER
    from slmops.models.source import save_model
    from slmops.train.events import FOLDER
    from slmops.train.forgetting import general
    from slmops.train.processes import Processes
    from slmops.train.trainer import train

    missing = {reason: rows for reason, rows in (left_out or {}).items() if rows}
    for reason, rows in missing.items():
        context.progress.note(f"warning: left out {rows} rows: {reason.replace('_', ' ')}")
    if settings.tensorboard:
        context.progress.note(f"to look on: tensorboard --logdir {context.work / FOLDER}")
    before = general(folder, general_text, context.work, context.progress) if measures_forgetting else None
    title = title or f"train on {len(examples)} rows"
    if adapter and adapter.backend == "olive":
        trained = _through_olive(folder, examples, settings, adapter, validation, context, title)
    else:
        trained = train(
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
            adapter=adapter,
            fsdp=fsdp,
            callbacks=callbacks,
            evaluated=context.evaluated,
            work=context.work,
            seed=context.seed,
            progress=context.progress,
            title=title,
        )
    if not Processes.joined().first:
        raise Helped
    save_model(trained.model, context.out / "model", tokenizer_from=folder)
    if trained.adapter:
        trained.adapter.save(context.out / ADAPTER)
    (context.out / "history.json").write_text(json.dumps(trained.history) + "\n", encoding="utf-8")
    if settings.tensorboard:
        shutil.copytree(context.work / FOLDER, context.out / FOLDER)
    names = term_names(objective) if objective else ["text"]
    # Of each the last that is known: the last entry may be of the student's own answers alone, and lack some.
    last = {name: entry[name] for entry in trained.history for name in names if name in entry}
    told = {
        **{f"loss_{name}": value for name, value in last.items()},
        "train_tokens": trained.tokens,
        "train_seconds": trained.seconds,
        "tokens_per_s": trained.tokens / max(trained.seconds, 1e-9),
        **{f"left_out_{reason}": rows for reason, rows in missing.items()},
        **trained.figures,
        **(_forgotten(before, trained, context.progress, full=adapter is None) if before else {}),
    }
    (context.out / "training.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
    return told


def _forgotten(before: General, trained: Trained, progress: Progress, *, full: bool) -> dict[str, float | str]:
    """Figures of what the model says now of the text that it was shown before; a warning is told."""
    from slmops.train.forgetting import Forgetting, nats_of

    after = nats_of(trained.model, before.passages)
    found = Forgetting(before.nats, after, before.tokens, before.bytes)
    warning = found.warning(full=full)
    if warning is None:
        return found.figures()
    progress.note(f"warning: {warning}")
    return {**found.figures(), "forgetting_at_step": trained.history[-1]["step"]}


def _through_olive(
    folder: Path,
    examples: Sequence[Example],
    settings: Optimisation,
    adapter: Adapter,
    validation: Sequence[Example],
    context: Context,
    title: str,
) -> Trained:
    """The recipe has made sure that nothing is asked for which Olive does not have."""
    from slmops.train.through_olive import train_through_olive

    return train_through_olive(
        folder,
        examples,
        settings,
        adapter,
        validation=validation,
        work=context.work,
        seed=context.seed,
        progress=context.progress,
        log=context.log,
        title=title,
    )
