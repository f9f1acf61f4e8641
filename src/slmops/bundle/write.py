"""Writing a bundle: a model, its evidence, and the manifest that holds them together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.bundle.manifest import (
    CARD,
    EVIDENCE,
    FORMAT,
    MANIFEST,
    MODEL,
    Calibration,
    FileRecord,
    Generation,
    Manifest,
    read_manifest,
)
from slmops.engines import ENGINES
from slmops.errors import BadInput
from slmops.pipeline.files import files_below, link_or_copy, sha256
from slmops.tasks import from_description


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
    created: str | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a bundle into the empty or absent folder `out`; the same arguments write the same bytes.

    Args:
        engine: a key of `ENGINES`, which can run `model_folder`.
        model_folder: weights, runtime configuration, tokenizer and chat template; linked where it is read-only.
        task: `Task.describe()`.
        lineage: plain JSON: recipe, seed, inputs, versions, machine.
        evidence: plain JSON: what was measured on this model.
        card: Markdown for people who find the folder.
        calibration: what `slmops.evaluate.stage_calibrate` wrote, for a task with labels.
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
    generation = Generation(max_tokens=from_description(task).max_answer_tokens)
    out.mkdir(parents=True, exist_ok=True)
    for path in files_below(model_folder):
        link_or_copy(model_folder / path, out / MODEL / path)
    (out / EVIDENCE).write_text(json.dumps(evidence, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if card is not None:
        (out / CARD).write_text(card, encoding="utf-8")
    manifest = Manifest(
        # What an older reader reads as well is told it as such.
        format=FORMAT if calibration else 1,
        name=name,
        version=version,
        created=created,
        engine=engine,
        task=dict(task),
        generation=generation,
        calibration=Calibration(**calibration) if calibration else None,
        lineage=dict(lineage),
        files={
            path: FileRecord(sha256=sha256(out / path), size=(out / path).stat().st_size) for path in files_below(out)
        },
    )
    (out / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def place_bundle(bundle: Path, target: Path) -> None:
    """Copy `bundle` to `target`, taking the place of a bundle that stands there.

    Raises:
        BadInput: `bundle` is damaged, or `target` is something else than a bundle.
    """
    read_manifest(bundle)
    if target.exists() and not (target / MANIFEST).is_file():
        raise BadInput(f"{target} exists and is not a bundle", hint="move it away")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(bundle, fresh)
    if target.exists():
        target.rename(stale)
    fresh.rename(target)
    shutil.rmtree(stale, ignore_errors=True)
