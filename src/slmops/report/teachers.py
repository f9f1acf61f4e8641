"""Who taught, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def answering(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The teachers of a resolved recipe that answer: all but one that judges."""
    judge = judge_of(recipe)
    return [teacher for teacher in recipe.get("teachers", ()) if judge is None or teacher["name"] != judge]


def judge_of(recipe: Mapping[str, Any]) -> str | None:
    """The name of the teacher that judges the others' answers."""
    name: str | None = (recipe.get("teach", {}).get("combine") or {}).get("judge")
    return name


def taught_by(recipe: Mapping[str, Any] | None) -> str:
    """Inside a sentence; several teachers by name."""
    teachers, judge = answering(recipe or {}), judge_of(recipe or {})
    told = "the teacher" if len(teachers) < 2 else f"{len(teachers)} teachers ({_names(teachers)})"
    told += f", chosen by {judge}" if judge else ""
    # Of words alone there is no teacher in any table.
    if len(teachers) > 1 and all(teacher["kind"] == "transformers" for teacher in teachers):
        told += f"; the teacher of every table is {teachers[0]['name']}"
    return told


def _names(teachers: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(teacher["name"] for teacher in teachers)
