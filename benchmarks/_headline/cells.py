"""The grid: each cell is one student, in one setting, from one seed, said as overrides of its task's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from _headline.corpus import Setting

RECIPES = Path(__file__).parents[1] / "recipes"
SEEDS = (1, 2, 3)
Precision = Literal["int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("int8", "int4")
TASKS = {"snips": "SNIPS", "banking77": "Banking77", "dialogsum": "DialogSum"}
SETTINGS: tuple[Setting, ...] = ("few", "all")

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "text": ("train.objective={kind: text}",),
    "kl": ("train.objective={kind: forward_kl}",),
    "kl-online": ("train.objective=[{kind: forward_kl, logits: online}, {kind: text, weight: 0.3}]",),
    "reverse-kl": ("train.objective={kind: reverse_kl, logits: online}",),
    "jsd": ("train.objective={kind: jsd, logits: online}",),
    "kl-hidden": (
        "train.objective=[{kind: forward_kl}, {kind: text, weight: 0.3}, {kind: hidden, weight: 0.3}]",
        "train.normalise=true",
    ),
    "kl-attn": (
        "train.objective=[{kind: forward_kl}, {kind: text, weight: 0.3}, {kind: attention, weight: 0.3}]",
        "train.normalise=true",
    ),
    "on-policy": ("train.objective={kind: jsd, logits: online}", "train.on_policy={fraction: 0.5}"),
}
"""What the student imitates; `default` is the setting's own, forward KL and the text: on the stored probabilities with
few labels, on those of a teacher that runs beside the student with all of them."""

HEALING: Mapping[str, tuple[str, ...]] = {
    "unhealed": (),
    "heal100k": ("student.heal={tokens: 100000}",),
}
"""Tokens of the task's own texts, without answers, on which a cut model finds its way back to the uncut one first."""

Budget = Literal["laptop", "gpu", "times"]
GPU_TEACHER = "e8-f0"
"""The way to fit the teacher that validation prefers among those of `GPU_TEACHERS`."""

BUDGETS: Mapping[Budget, tuple[str, ...]] = {
    "laptop": (),
    # The teacher writes on the GPU too. Processes share the processor there, so nothing of these runs is timed.
    "gpu": (
        *("teach.engine=transformers", "evaluate.quantised_teacher=false", "evaluate.latency_requests=3"),
        *("teachers.0.fit.precision=fp32", "train.precision=fp32"),
    ),
    "times": (),  # `ONE_PASS`, which comes last: it takes back what a student asks for
}
"""What a training may take: two cores for an hour, passes without end, or two cores for as little as gives the time
that a student of the GPU's takes."""

ONE_PASS = (
    *("teachers.0.fit.epochs=1", "train.epochs=1", "train.baseline_epochs=1"),
    "compress.algorithm=rtn",
)
"""How long a student takes follows from its shape and bits, not from what it learned or how it was rounded; a teacher
must have learned to end."""

SETTING: Mapping[Setting, tuple[str, ...]] = {
    "few": (),
    # Seven times the labels, and hardly a text without one: what the teacher knows comes from its probabilities.
    "all": (
        "teachers.0.fit.epochs=2",
        "train.epochs=2",
        "train.baseline_epochs=3",
        "train.objective=[{kind: forward_kl, logits: online}, {kind: text, weight: 0.3}]",
    ),
}

TEACHERS: Mapping[str, tuple[str, ...]] = {
    "recipe": (),
    **{
        f"e{epochs}-f{freeze}": (f"teachers.0.fit.epochs={epochs}", f"teachers.0.fit.freeze_layers={freeze}")
        for epochs, freeze in ((3, 8), (5, 8), (4, 12), (2, 12), (8, 8), (8, 0), (16, 0))
    },
}
LAPTOP_TEACHERS = ("recipe", "e3-f8", "e5-f8", "e4-f12", "e2-f12")
GPU_TEACHERS = ("recipe", "e8-f8", "e8-f0", "e16-f0")
"""Ways to fit the teacher. Validation decides between them; the better one is then written into the recipe."""


@dataclass(frozen=True)
class Student:
    """What is cut from the teacher: see `student.carve` and `student.head` of a recipe.

    `passes` over its rows instead of as many as its head and depth get.
    """

    head: Literal["language", "tags"]
    layers: int
    choose: Literal["importance", "first", "even"] = "importance"
    vocabulary: Literal["trim", "frequent", "keep"] = "trim"
    heads: int | None = None
    channels: int | None = None
    passes: int | None = None

    @property
    def name(self) -> str:
        passes = f"-p{self.passes}" if self.passes else ""
        width = "".join(f"-{letter}{kept}" for letter, kept in (("h", self.heads), ("c", self.channels)) if kept)
        head = {"language": "lm", "tags": "tags"}[self.head]
        choice = {"importance": "imp"}.get(self.choose, self.choose)
        return f"{head}-{self.layers:02}-{choice}-{self.vocabulary}{width}{passes}"

    def overrides(self) -> Iterator[str]:
        for key in ("layers", "choose", "vocabulary"):
            yield f"student.carve.{key}={getattr(self, key)}"
        if self.vocabulary == "frequent":
            yield f"student.carve.extra_tokens={FREQUENT}"
        for key in ("heads", "channels"):
            if (kept := getattr(self, key)) is not None:
                yield f"student.carve.{key}={kept}"
        if self.head != "language":
            yield f"student.head={self.head}"
            # It writes no words whose probabilities could be imitated.
            yield "train.objective={kind: text}"
            # It reads a sentence and writes nothing, so a pass is short; its head begins with nothing. The lowest third
            # stays as it is: what pretraining made of words is worth more there than what a few labels say.
            yield "train.epochs=5"
            yield "train.baseline_epochs=20"
            yield "train.learning_rate=4.0e-4"
            yield f"train.freeze_layers={self.layers // 3}"
        elif self.layers >= DEEP:
            # A deep student is near the teacher it was cut from, and its steps are dear.
            yield "train.epochs=2"
            yield "train.freeze_layers=8"
        if self.passes:
            yield f"train.epochs={self.passes}"


DEEP, FREQUENT = 20, 12_000


@dataclass(frozen=True)
class Cell:
    """One point of the grid. Without a student it is a way to fit the teacher, of which only validation is known.

    Without a precision the student is not shipped: the cell asks what training makes of it.
    """

    task: str
    setting: Setting
    seed: int
    student: Student | None = None
    objective: str = "default"
    heal: str = "unhealed"
    precision: Precision | None = "int8"
    teacher: str = "recipe"
    budget: Budget = "laptop"
    extra: tuple[str, ...] = field(default=(), compare=False)

    @property
    def rung(self) -> str:
        """The cell's name without its seed: what cells of a budget that differ in nothing else have in common."""
        if self.student is None:
            return f"{self.task}.{self.setting}.teacher-{self.teacher}"
        ships = self.precision or "unshipped"
        return f"{self.task}.{self.setting}.{self.student.name}.{self.objective}.{self.heal}.{ships}"

    @property
    def name(self) -> str:
        return f"{self.rung}.s{self.seed}"

    @property
    def trained(self) -> str:
        """A pattern of the names of all cells of the same training: they differ in their precision alone."""
        return self.name if self.student is None else f"{self.rung.rpartition('.')[0]}.*.s{self.seed}"

    @property
    def recipe(self) -> Path:
        return RECIPES / f"{self.task}.yaml"

    def overrides(self) -> list[str]:
        """Everything but the files."""
        told = [f"seed={self.seed}", *SETTING[self.setting], *TEACHERS[self.teacher], *BUDGETS[self.budget]]
        if self.student is not None:
            told += [*self.student.overrides(), *OBJECTIVES[self.objective], *HEALING[self.heal]]
            told += [f"compress.precision={self.precision}"] if self.precision else []
        return [*told, *(ONE_PASS if self.budget == "times" else ()), *self.extra]

    def asked(self) -> dict[str, Any]:
        """All that the cell asks for besides its rows; a record of anything else is not this cell's."""
        return {"recipe": yaml.safe_load(self.recipe.read_text(encoding="utf-8")), "overrides": self.overrides()}


TAGS = [Student("tags", layers, "first") for layers in (6, 12, 4, 8, 2)]
TAGS_FREQUENT = [Student("tags", layers, "first", "frequent") for layers in (6, 12)]
TAGS_ALL_TOKENS = [Student("tags", layers, "first", "keep") for layers in (6, 12)]
LANGUAGE = [Student("language", layers) for layers in (28, 12, 20, 6)]
LANGUAGE_ALL_TOKENS = [Student("language", layers, vocabulary="keep") for layers in (28, 20)]
CHOSEN_OTHERWISE = [Student("language", 12, choose) for choose in ("first", "even")]
NARROW = [Student("language", 20, channels=1024), Student("tags", 6, "first", channels=1024)]
CLASSIFIERS = [Student("language", 6, "first"), Student("tags", 6, "first"), Student("language", 4, "first")]
HEALED = [LANGUAGE[1], TAGS[0], LANGUAGE[3]]
COMPARED = Student("language", 20, passes=4)
"""The student that objectives are compared on: deep enough to write JSON at all."""

SUMMARISER = Student("language", 20)


def grid(budget: Budget) -> list[Cell]:
    """All cells, in the order of their worth."""
    if budget == "laptop":
        return _on_laptop()
    on_gpu = _on_gpu()
    if budget == "gpu":
        return on_gpu
    return [
        replace(cell, budget="times", teacher="recipe")
        for cell in on_gpu
        if cell.student and cell.precision and cell.seed == SEEDS[0]
    ]


def _on_laptop() -> list[Cell]:
    first, second = [*TAGS[:2], *TAGS_FREQUENT, *LANGUAGE[:2]], [*TAGS[2:], *LANGUAGE[2:]]
    return [
        *(Cell("snips", "few", 1, teacher=teacher) for teacher in LAPTOP_TEACHERS),
        *_cells("snips", "few", [*first, *second], SEEDS[:1]),
        *_cells("snips", "few", first, SEEDS[1:]),
        *_cells("snips", "few", HEALED, SEEDS[:1], heal="heal100k"),
        *_cells("banking77", "few", CLASSIFIERS, SEEDS),
        *_cells("snips", "all", first, SEEDS),
        *_cells("snips", "few", [*TAGS_ALL_TOKENS, *LANGUAGE_ALL_TOKENS, *CHOSEN_OTHERWISE, *NARROW], SEEDS[:1]),
        *_compared(SEEDS),
        *_cells("snips", "few", second, SEEDS[1:]),
        *_cells("banking77", "all", CLASSIFIERS, SEEDS),
        *_cells("dialogsum", "few", LANGUAGE[1:3], SEEDS),
    ]


def _compared(seeds: Sequence[int]) -> Iterator[Cell]:
    """The same student after every objective; what takes longest comes first."""
    for seed, objective in product(seeds, reversed(OBJECTIVES)):
        yield Cell("snips", "few", seed, COMPARED, objective, precision=None)


def _on_gpu() -> list[Cell]:
    """Fewer kinds of student, each from three seeds; first what shares no teacher."""
    six, twelve, eight = TAGS[0], TAGS[1], TAGS[3]
    compared = [replace(cell, extra=("train.batch_tokens=2048",)) for cell in _compared(SEEDS)]
    made = [
        *_cells("snips", "few", [twelve], SEEDS),
        *_cells("snips", "all", [twelve], SEEDS, precisions=["int8"]),
        *_cells("snips", "few", [eight], SEEDS, precisions=["int4"]),
        *_cells("banking77", "few", [six], SEEDS),
        *_cells("dialogsum", "few", [SUMMARISER], SEEDS, precisions=[None]),
        *compared[:: len(OBJECTIVES)],
        *_cells("snips", "few", [six], SEEDS, precisions=["int4"]),
        *(cell for cell in compared if cell.objective != "on-policy"),
        *_cells("snips", "few", [LANGUAGE[1]], SEEDS, precisions=[None]),
        *_cells("snips", "few", [LANGUAGE[1]], SEEDS, heal="heal100k", precisions=[None]),
    ]
    fitted = [Cell("snips", "few", 1, teacher=teacher, budget="gpu") for teacher in GPU_TEACHERS]
    return [*fitted, *(replace(cell, budget="gpu", teacher=GPU_TEACHER) for cell in made)]


def _cells(
    task: str,
    setting: Setting,
    students: Sequence[Student],
    seeds: Sequence[int],
    heal: str = "unhealed",
    precisions: Sequence[Precision | None] = PRECISIONS,
) -> Iterator[Cell]:
    """Each student from each seed in every precision: a second one costs its export and its answers alone."""
    for seed, student, precision in product(seeds, students, precisions):
        yield Cell(task, setting, seed, student, heal=heal, precision=precision)
