"""One stage's work as plain text, and doing it."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from slmops.errors import SlmopsError
from slmops.pipeline.artifact import Figure
from slmops.pipeline.stage import Context, Make, Spread, Stage, one_by_one
from slmops.progress import Evaluated, Progress


@dataclass(frozen=True)
class Job:
    """One stage's work as plain text, so that it can be sent to another process or machine with the same files.

    Attributes:
        stage: import path of the stage's class, `package.module:Class`.
        settings_type: import path of the settings' pydantic model.
        settings: the settings as JSON.
        inputs: input name to absolute path.
        out: see `Context.out`; absolute.
        work: see `Context.work`; absolute.
        kept: see `Context.kept`; absolute.
    """

    stage: str
    settings_type: str
    settings: str
    inputs: Mapping[str, str]
    out: str
    work: str
    kept: str
    seed: int

    def read_settings(self) -> BaseModel:
        settings_type: type[BaseModel] = pkgutil.resolve_name(self.settings_type)
        return settings_type.model_validate_json(self.settings)

    def do(
        self,
        progress: Progress,
        log: logging.Logger,
        *,
        make: Make | None = None,
        evaluated: Evaluated | None = None,
        spread: Spread = one_by_one,
    ) -> Mapping[str, Figure]:
        """Run the stage in this process and return its figures; see `Context`. Whatever it raises is raised here."""
        stage: Stage = pkgutil.resolve_name(self.stage)()
        context = Context(
            out=Path(self.out),
            work=Path(self.work),
            kept=Path(self.kept),
            seed=self.seed,
            progress=progress,
            log=log,
            spread=spread,
        )
        if make:
            context = replace(context, make=make)
        if evaluated:
            context = replace(context, evaluated=evaluated)
        inputs = {name: Path(path) for name, path in self.inputs.items()}
        return stage.run(inputs, self.read_settings(), context)


def import_path(kind: type) -> str:
    """`package.module:Class`, by which `kind` can be found again.

    Raises:
        SlmopsError: it cannot, because it is defined inside a function.
    """
    if "<locals>" in kind.__qualname__:
        raise SlmopsError(f"{kind.__qualname__} is defined inside a function, so no executor can find it by name")
    return f"{kind.__module__}:{kind.__qualname__}"
