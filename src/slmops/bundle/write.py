"""Writing a bundle: a model, its evidence, and the manifest that holds them together."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slmops.bundle.manifest import (
    ADAPTERS,
    CARD,
    EVIDENCE,
    FORMAT,
    MANIFEST,
    MODEL,
    NAME,
    VERSION,
    Adapter,
    Calibration,
    FileRecord,
    Generation,
    Manifest,
    read_manifest,
)
from slmops.bundle.phrases import PHRASES, Phrases
from slmops.engines import ADAPTING, ENGINES
from slmops.errors import BadInput
from slmops.pipeline.files import files_below, link_or_copy, sha256
from slmops.tasks import from_description


@dataclass(frozen=True)
class AdapterPart:
    """An adapter that goes into a bundle.

    Attributes:
        path: a `.onnx_adapter` file, or for transformers a folder of PEFT.
        task, evidence, calibration: as of the bundle itself; None where it has none of its own.
    """

    path: Path
    task: Mapping[str, Any]
    evidence: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None


def write_bundle(
    out: Path,
    *,
    name: str,
    version: str,
    engine: str,
    model_folder: Path,
    task: Mapping[str, Any],
    lineage: Mapping[str, Any],
    evidence: Mapping[str, Any],
    card: str | None = None,
    phrases: Phrases | None = None,
    created: str | None = None,
    calibration: Mapping[str, Any] | None = None,
    adapters: Mapping[str, AdapterPart] = MappingProxyType({}),
) -> Manifest:
    """Write a bundle into the empty or absent folder `out`; the same arguments write the same bytes.

    Args:
        engine: a key of `ENGINES`, which can run `model_folder`.
        model_folder: weights, runtime configuration, tokenizer and chat template; linked where it is read-only.
        task: `Task.describe()`.
        lineage: plain JSON: recipe, seed, inputs, versions, machine.
        evidence: plain JSON: what was measured on this model.
        card: Markdown for people who find the folder.
        phrases: a server guesses by them.
        calibration: what `slmops.evaluate.stage_calibrate` wrote, for a task with labels.
        adapters: that the model can be run with, by name.
        created: ISO 8601; leave it out where equal inputs must give equal bundles.

    Raises:
        BadInput: `out` holds something, the engine or the task is not known, or a part is missing.
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty", hint="choose another folder")
    if engine not in ENGINES:
        raise BadInput(f"there is no engine {engine!r}", hint=f"choose one of {', '.join(sorted(ENGINES))}")
    if not (model_folder / "tokenizer.json").is_file():
        raise BadInput(f"{model_folder} holds no tokenizer.json, so the bundle could not answer")
    _check_adapters(engine, adapters)
    generation = _generation(task)
    out.mkdir(parents=True, exist_ok=True)
    for path in files_below(model_folder):
        link_or_copy(model_folder / path, out / MODEL / path)
    _write_json(out / EVIDENCE, evidence)
    written = {name: _write_adapter(out, name, part) for name, part in sorted(adapters.items())}
    if card is not None:
        (out / CARD).write_text(card, encoding="utf-8")
    if phrases:
        phrases.save(out / PHRASES)
    manifest = Manifest(
        # What an older reader reads as well is told it as such.
        format=FORMAT if adapters else 2 if calibration else 1,
        name=name,
        version=version,
        created=created,
        engine=engine,
        task=dict(task),
        generation=generation,
        calibration=Calibration(**calibration) if calibration else None,
        adapters=written,
        lineage=dict(lineage),
        files={
            path: FileRecord(sha256=sha256(out / path), size=(out / path).stat().st_size) for path in files_below(out)
        },
    )
    (out / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def _check_adapters(engine: str, adapters: Mapping[str, AdapterPart]) -> None:
    if adapters and engine not in ADAPTING:
        raise BadInput(f"{engine} runs no adapters", hint=f"merge them, or ship the model for {' or '.join(ADAPTING)}")
    for name, part in adapters.items():
        if not re.fullmatch(NAME, name):
            raise BadInput(f"an adapter cannot be called {name!r}", hint="take lower-case letters, digits and . _ -")
        if not part.path.exists():
            raise BadInput(f"the adapter {name} is not there: {part.path}")
        from_description(part.task)


def _write_adapter(out: Path, name: str, part: AdapterPart) -> Adapter:
    place = Path(ADAPTERS) / f"{name}{part.path.suffix if part.path.is_file() else ''}"
    files = files_below(part.path) if part.path.is_dir() else [""]
    for file in files:
        link_or_copy(part.path / file, out / place / file)
    evidence = Path(ADAPTERS) / f"{name}.{EVIDENCE}" if part.evidence is not None else None
    if evidence:
        _write_json(out / evidence, part.evidence)
    return Adapter(
        path=place.as_posix(),
        task=dict(part.task),
        generation=_generation(part.task),
        calibration=Calibration(**part.calibration) if part.calibration else None,
        evidence=evidence.as_posix() if evidence else None,
    )


def _generation(task: Mapping[str, Any]) -> Generation:
    return Generation(max_tokens=from_description(task).max_answer_tokens)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_place(target: Path, name: str, version: str) -> None:
    """Refuse what a bundle cannot be called, or where it cannot be placed, before it is made.

    Raises:
        BadInput: with what it may be.
    """
    if not re.fullmatch(NAME, name):
        raise BadInput(f"a bundle cannot be called {name!r}", hint="take lower-case letters, digits and . _ -")
    if not re.fullmatch(VERSION, version):
        raise BadInput(f"a bundle cannot have the version {version!r}", hint="as in 1.0.0")
    _check_target(target)


def _check_target(target: Path) -> None:
    if target.exists() and not (target / MANIFEST).is_file():
        raise BadInput(f"{target} exists and is not a bundle", hint="move it away")


def place_bundle(bundle: Path, target: Path) -> None:
    """Copy `bundle` to `target`, taking the place of a bundle that stands there.

    Raises:
        BadInput: `bundle` is damaged, or `target` is something else than a bundle.
    """
    read_manifest(bundle)
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(bundle, fresh)
    if target.exists():
        target.rename(stale)
    fresh.rename(target)
    shutil.rmtree(stale, ignore_errors=True)
