"""Several answers of one teacher to every row: each is a voter, with its share of the teacher's weight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slmops.teach.answers import Answer, save_answers

DRAWS = "draws"
"""In an artifact of answers: a folder of answers for each draw, where a teacher gave more than one to a row."""


class Voter(NamedTuple):
    """One draw of a teacher.

    Attributes:
        teacher: its position.
        folder: of the answers, as `load_answers` reads them.
    """

    teacher: int
    folder: Path
    weight: float


def save_draws(folder: Path, draws: Sequence[Sequence[Answer]]) -> None:
    """Write the usable answers of each draw below the artifact `folder`; one draw alone is the artifact itself."""
    for number, answers in enumerate(draws if len(draws) > 1 else ()):
        save_answers(folder / DRAWS / f"{number:02}", answers)


def voters(folders: Sequence[Path], weights: Sequence[float]) -> list[Voter]:
    """Every draw of every teacher: of n draws each has 1/n of the teacher's weight.

    Args:
        folders: artifacts of answers, one of each teacher.
    """
    found = []
    for teacher, (folder, weight) in enumerate(zip(folders, weights, strict=True)):
        draws = sorted((folder / DRAWS).glob("*")) or [folder]
        found += [Voter(teacher, draw, weight / len(draws)) for draw in draws]
    return found
