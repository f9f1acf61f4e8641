"""What a recipe may say. Every default of the product stands in this folder and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from slmops.recipe.compress import Compress
from slmops.recipe.data import DataSettings
from slmops.recipe.evaluate import EvaluateSettings
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.rules import check
from slmops.recipe.settings import FolderName, Settings, one_or_more
from slmops.recipe.several import (
    PARTS,
    SLOTTED,
    MergeSettings,
    OneAdapter,
    handed_down,
    without_rows,
)
from slmops.recipe.student import StudentSettings
from slmops.recipe.task import TaskSettings
from slmops.recipe.teachers import EndpointTeacher, Teacher, TransformersTeacher, draws_of
from slmops.recipe.teaching import TeachSettings
from slmops.recipe.training import TrainSettings
from slmops.recipe.trials import TuneSettings


class BundleSettings(Settings):
    """What the shipped folder is called."""

    name: FolderName | None = Field(None, description="Folder below `bundles/`; the recipe's name when absent.")
    version: str = Field("0.1.0", pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$", description="Written into the manifest.")


_PATHS = (
    ("task", ("schema",)),
    ("data", ("train", "pool", "test")),
    ("evaluate", ("released", "regression")),
)
"""Where a recipe names files."""


def _named_judge(given: Mapping[str, Any]) -> Any:
    """`teach.combine.judge` of a recipe that has not been looked at yet."""
    for name in ("teach", "combine", "judge"):
        given = given.get(name, {}) if isinstance(given, Mapping) else {}
    return given or None


class Recipe(Settings):
    """One file from data to a shipped model with its evidence."""

    name: FolderName = Field(description="Lower-case letters, digits, `.`, `_` and `-`.")
    seed: int = Field(7, ge=0, description="Of everything that is drawn by chance.")
    executor: Literal["local", "ray"] = Field(
        "local",
        description="Where a local teacher answers its batches, and where `slmops tune` trains: here, or on a Ray "
        "cluster that sees the same files (needs `slmops[ray]`). What comes out is the same.",
    )
    task: TaskSettings = Field(description="What the model does.")
    data: DataSettings = Field(description="Where rows come from.")
    privacy: PrivacySettings = Field(
        default_factory=PrivacySettings, description="What may leave this machine, and what is taken out of it first."
    )
    teachers: list[Teacher] = Field(
        default_factory=list,
        description="Who the student learns from. It is cut from the first, which is the teacher of every table; where "
        "one is behind an endpoint or a bundle, the student is `student.model` and learns the words of all. Without "
        "one, `student.model` is fine-tuned on the labelled rows (docs/guides/finetune.md).",
    )
    teach: TeachSettings = Field(default_factory=TeachSettings, description="How the pool is answered.")
    student: StudentSettings = Field(default_factory=StudentSettings, description="What the student is made of.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="How the student learns.")
    adapters: dict[str, OneAdapter] = Field(
        default_factory=dict,
        description="Several adapters on one base, `student.model`, each trained and measured by itself "
        "(docs/guides/finetune.md). `task`, `data`, `train` and `evaluate` of the recipe are what each has that it "
        "does not say of its own; `task` and `data` may be left out where every adapter says them.",
    )
    merge: Annotated[list[MergeSettings], BeforeValidator(one_or_more)] = Field(
        default_factory=list, description="How the adapters become one: a way, or a list of them, each measured."
    )
    compress: Compress = Field(default_factory=Compress, description="How it is made small.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="What is measured.")
    bundle: BundleSettings = Field(default_factory=BundleSettings, description="How it is shipped.")
    tune: TuneSettings | None = Field(None, description="Which settings `slmops tune` looks for better values of.")

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe in the file `path`; see `slmops.recipe.load_recipe`."""
        from slmops.recipe.load import load_recipe

        return load_recipe(path, overrides)

    @model_validator(mode="before")
    @classmethod
    def _handed_down(cls, given: Any) -> Any:
        return without_rows(handed_down(given))

    @model_validator(mode="before")
    @classmethod
    def _words_alone(cls, given: Any) -> Any:
        """Endpoints and bundles give words alone: what is learned from one where nothing else is asked for."""
        teachers = given.get("teachers") if isinstance(given, Mapping) else None
        named = [one for one in teachers if isinstance(one, Mapping)] if isinstance(teachers, list) else []
        train, judge = given.get("train", {}) if named else None, _named_judge(given)
        answering = [one for one in named if judge is None or one.get("name") != judge]
        words = any(one.get("kind") in ("endpoint", "bundle") for one in answering)
        if not (words and isinstance(train, Mapping)):
            return given
        return {**given, "train": {"objective": {"kind": "text"}, **train}}

    @model_validator(mode="before")
    @classmethod
    def _nearest_on_a_learned_grid(cls, given: Any) -> Any:
        """A student that has learned on its grid lies on it, so there is nothing to choose."""
        if not isinstance(given, Mapping):
            return given
        train, compress = given.get("train"), given.get("compress", {})
        learned = isinstance(train, Mapping) and train.get("round_to_int4") is not None
        if not (learned and isinstance(compress, Mapping)) or "search" in compress:
            return given
        return {**given, "compress": {"algorithm": "rtn", **compress}}

    @field_validator("teachers")
    @classmethod
    def _names(cls, teachers: list[Teacher]) -> list[Teacher]:
        names = [teacher.name for teacher in teachers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two are called `{twice[0]}`; give each a `name` of its own")
        return teachers

    @field_validator("teach")
    @classmethod
    def _combined(cls, teach: TeachSettings, info: ValidationInfo) -> TeachSettings:
        # Where the teachers themselves are wrong, that is what is told.
        if teach.combine and "teachers" in info.data:
            teach.combine.check([teacher.name for teacher in info.data["teachers"]])
        weighted = teach.combine is None or teach.combine.how == "weighted"
        voters = sum(map(draws_of, info.data.get("teachers", ())))
        if teach.curate.agreement is not None and (not weighted or voters == 1):
            raise ValueError(
                "`curate.agreement` is for several answers to every row, which vote: of several teachers, or of one "
                "with `n` above 1"
            )
        return teach

    @model_validator(mode="after")
    def _parts_go_together(self) -> Recipe:
        check(self)
        return self

    def of_adapter(self, name: str) -> Recipe:
        """The recipe of one adapter, as if it were the only one."""
        own = {part: getattr(self.adapters[name], part) for part in PARTS}
        shared = {part: getattr(self, part) for part in ("seed", "privacy", "student")}
        return AdapterRecipe(name=f"{self.name}-{name}", **shared, **own)

    @property
    def ships(self) -> bool:
        """Whether what is trained becomes a plain model, which can be made small and bundled."""
        return not self.adapters and (self.train.to_make is None or self.train.to_make.merges)

    @property
    def slots(self) -> bool:
        """Whether several adapters ship beside the base that they share."""
        return bool(self.adapters) and all(one.train.method in SLOTTED for one in self.adapters.values())

    @property
    def teacher(self) -> Teacher:
        """The first: the student is cut from it, and tables compare with it."""
        return self.teachers[0]

    @property
    def endpoints(self) -> list[EndpointTeacher]:
        """The teachers that are behind an endpoint, one that judges included."""
        return [teacher for teacher in self.teachers if isinstance(teacher, EndpointTeacher)]

    @property
    def judge(self) -> Teacher | None:
        """The teacher that judges the others' answers."""
        name = self.teach.combine.judge if self.teach.combine else None
        return next((teacher for teacher in self.teachers if teacher.name == name), None)

    @property
    def answering(self) -> list[tuple[int, Teacher]]:
        """The teachers that answer, each with its number in the recipe, from 1."""
        return [(n, teacher) for n, teacher in enumerate(self.teachers, 1) if teacher is not self.judge]

    @property
    def votes(self) -> bool:
        """Whether several answers to every row vote for the one that is learned."""
        weighted = self.teach.combine is None or self.teach.combine.how == "weighted"
        return weighted and sum(draws_of(teacher) for teacher in self.teachers) > 1

    @property
    def words_alone(self) -> bool:
        """Whether the student learns words without probabilities: not every teacher that answers gives more."""
        return any(not isinstance(teacher, TransformersTeacher) for _, teacher in self.answering)

    @property
    def user(self) -> TransformersTeacher | EndpointTeacher | None:
        """Who plays the user in talks that are written, where that is not the teacher itself."""
        return self.teach.converse.user if self.teach.converse else None

    def shareable(self) -> dict[str, Any]:
        """`resolved()` with every path cut down to its name: what may travel with a bundle or a report.

        Where a file lay on somebody's disk is nobody's business, and must not change the key of what was made. What was
        looked for in finding the settings made nothing.
        """
        recipe = self.resolved() | {"privacy": self.privacy.shareable()}
        del recipe["tune"]
        each = [recipe, *recipe["adapters"].values()]
        for one, (part, keys) in product(each, _PATHS):
            one[part] |= {key: Path(one[part][key]).name for key in keys if one[part].get(key)}
        for one in each:
            if isinstance(text := one["train"]["general_text"], str):
                one["train"]["general_text"] = Path(text).name
        if (heal := recipe["student"]["heal"]) and heal["text"]:
            heal["text"] = [Path(path).name for path in heal["text"]]
        user = (recipe["teach"]["converse"] or {}).get("user")
        judges = [one["evaluate"]["judge"] for one in each]
        for model in (*recipe["teachers"], recipe["student"], *filter(None, [user, *judges])):
            if model.get("model") and Path(model["model"]).is_absolute():
                model["model"] = Path(model["model"]).name
            if model.get("path"):
                model["path"] = Path(model["path"]).name
        return recipe

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)


class AdapterRecipe(Recipe):
    """The recipe of one adapter of several: it is measured, and does not ship by itself."""

    @property
    def ships(self) -> bool:
        return False
