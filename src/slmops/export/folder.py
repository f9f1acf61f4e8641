"""Where an export goes, and which bundles can be exported at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slmops.bundle import Bundle, open_bundle
from slmops.bundle.manifest import MODEL
from slmops.errors import BadInput
from slmops.models.tag_files import is_tagger

CONFIG = "config.json"


def writing_bundle(folder: Path, target: str) -> Bundle:
    """The bundle in `folder`, verified, whose model writes.

    Args:
        target: what is to run it, as people call it.

    Raises:
        BadInput: the bundle cannot be trusted, has adapters, or its student marks.
    """
    bundle = open_bundle(folder)
    if is_tagger(folder / MODEL):
        raise BadInput(
            f"the student in {folder} marks its message and writes nothing, and {target} can only let a model write",
            hint="ask it by slmops predict, or train one that writes: student.head: text",
        )
    if names := list(bundle.manifest.adapters):
        raise BadInput(
            f"the bundle {folder} has adapters ({', '.join(names)}), and {target} would run its base alone",
            hint="merge an adapter into the base, and export what comes out",
        )
    return bundle


def runs_on(bundle: Bundle, engine: str, target: str) -> None:
    """Refuse a bundle of another runtime.

    Raises:
        BadInput: with the setting that makes one.
    """
    if bundle.manifest.engine != engine:
        raise BadInput(
            f"{target} takes a bundle for {engine}, and {bundle.folder} is for {bundle.manifest.engine}",
            hint=f"set compress.runtime: {engine}, and run the recipe again",
        )


def model_config(bundle: Bundle) -> dict[str, Any]:
    """The Hugging Face configuration of the bundle's model.

    Raises:
        BadInput: the bundle is from before it went along.
    """
    path = bundle.folder / MODEL / CONFIG
    if not path.is_file():
        raise BadInput(
            f"the bundle {bundle.folder} holds no {MODEL}/{CONFIG}, so the shape of its model is not known",
            hint="it was written by an earlier version: run its recipe again",
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def check_free(out: Path) -> None:
    """Refuse a place that is taken, before any work.

    Raises:
        BadInput: `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists already and is not empty", hint="choose another folder with --out")


def fresh(out: Path) -> Path:
    """`out`, made.

    Raises:
        BadInput: it holds something.
    """
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
