"""What a recipe may say. Every default of the product stands in this folder and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from slmops.recipe.compress import Compress
from slmops.recipe.data import DataSettings
from slmops.recipe.evaluate import EvaluateSettings
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import FolderName, Settings
from slmops.recipe.task import ExtractionTask, TaskSettings
from slmops.recipe.teaching import Budget, TeachSettings
from slmops.recipe.training import Asking, EndpointTeacher, StudentSettings, Teacher, TrainSettings, TransformersTeacher


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


class Recipe(Settings):
    """One file from data to a shipped model with its evidence."""

    name: FolderName = Field(description="Lower-case letters, digits, `.`, `_` and `-`.")
    seed: int = Field(7, ge=0, description="Of everything that is drawn by chance.")
    task: TaskSettings = Field(description="What the model does.")
    data: DataSettings = Field(description="Where rows come from.")
    privacy: PrivacySettings = Field(
        default_factory=PrivacySettings, description="What may leave this machine, and what is taken out of it first."
    )
    teachers: list[Teacher] = Field(
        min_length=1,
        description="Who the student learns from. It is cut from the first, which is the teacher of every table; one "
        "behind an endpoint teaches alone, and the student is then `student.model`.",
    )
    teach: TeachSettings = Field(default_factory=TeachSettings, description="How the pool is answered.")
    student: StudentSettings = Field(default_factory=StudentSettings, description="What the student is made of.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="How the student learns.")
    compress: Compress = Field(default_factory=Compress, description="How it is made small.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="What is measured.")
    bundle: BundleSettings = Field(default_factory=BundleSettings, description="How it is shipped.")

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe in the file `path`; see `slmops.recipe.load_recipe`."""
        from slmops.recipe.load import load_recipe

        return load_recipe(path, overrides)

    @model_validator(mode="before")
    @classmethod
    def _words_alone(cls, given: Any) -> Any:
        """An endpoint gives words alone, so that is what is learned from one where nothing else is asked for."""
        teachers = given.get("teachers") if isinstance(given, Mapping) else None
        first = teachers[0] if isinstance(teachers, list) and teachers else None
        train = given.get("train", {}) if first else None
        if not (isinstance(first, Mapping) and first.get("kind") == "endpoint" and isinstance(train, Mapping)):
            return given
        return {**given, "train": {"objective": {"kind": "text"}, **train}}

    @field_validator("teachers")
    @classmethod
    def _names(cls, teachers: list[Teacher]) -> list[Teacher]:
        names = [teacher.name for teacher in teachers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two are called `{twice[0]}`; give each a `name` of its own")
        if len(teachers) > 1 and (remote := [t.name for t in teachers if isinstance(t, EndpointTeacher)]):
            raise ValueError(
                f"`{remote[0]}` is behind an endpoint and teaches alone; there are {len(teachers)} teachers"
            )
        return teachers

    @field_validator("teach")
    @classmethod
    def _combined(cls, teach: TeachSettings, info: ValidationInfo) -> TeachSettings:
        # Where the teachers themselves are wrong, that is what is told.
        if teach.combine and "teachers" in info.data:
            teach.combine.check([teacher.name for teacher in info.data["teachers"]])
        routed = teach.combine is not None and teach.combine.how == "routed"
        if teach.curate.agreement is not None and (routed or len(info.data.get("teachers", (1, 2))) == 1):
            raise ValueError("`curate.agreement` is for several teachers that answer every row, each its own way")
        return teach

    @model_validator(mode="after")
    def _one_grid(self) -> Recipe:
        learned, ships = self.train.round_to_int4, self.compress
        if learned is None or ships.precision != "int4" or ships.search:
            return self
        if ships.recover:
            raise ValueError(
                "`train.round_to_int4` has learned on the grid already, so there is nothing for `compress.recover`"
            )
        wanted = ("rtn", learned.block_size, learned.head, True, 0, None)
        zeros, eight, pruned = ships.symmetric, ships.int8_layers, ships.sparsity
        if (ships.algorithm, ships.block_size, ships.head, zeros, eight, pruned) != wanted:
            raise ValueError(
                f"`train.round_to_int4` trains for rtn in blocks of {learned.block_size} with an {learned.head} head, "
                f"`compress` makes {ships.algorithm} in blocks of {ships.block_size} with an {ships.head} head: "
                "the student would be rounded twice"
            )
        return self

    @model_validator(mode="after")
    def _learnable_by_its_head(self) -> Recipe:
        if self.student.head == "language":
            return self
        if self.task.kind != "extraction":
            raise ValueError(f"`student.head: tags` is for extraction, and `task.kind` is {self.task.kind}")
        if "objective" in self.train.model_fields_set and any(term.kind != "text" for term in self.train.objective):
            raise ValueError(
                "`student.head: tags` learns labels, and `train.objective` compares next tokens or layers: leave it "
                "out, or set it to `kind: text`"
            )
        return self

    @model_validator(mode="after")
    def _written_for_the_task(self) -> Recipe:
        write, kind = self.teach.write, self.task.kind
        if self.teach.reason and kind != "maths":
            raise ValueError(
                f"`teach.reason` is for `task.kind: maths`, whose answers hold their steps; {kind} has bare answers"
            )
        if self.teach.converse and kind != "conversation":
            raise ValueError(f"`teach.converse` is for `task.kind: conversation`, and this is {kind}")
        labelled = kind in ("classification", "nli") or (isinstance(self.task, ExtractionTask) and self.task.label)
        if write and (write.per_label or write.balance) and not labelled:
            name = "per_label" if write.per_label else "balance"
            raise ValueError(f"`teach.write.{name}`: an answer of this task has no label; give `rows` alone")
        return self

    @model_validator(mode="after")
    def _learnable_from_an_endpoint(self) -> Recipe:
        budget, teacher = self.teach.budget, self.teacher
        if not isinstance(teacher, EndpointTeacher):
            if budget != Budget():
                raise ValueError(
                    "`teach.budget` is for a teacher of `kind: endpoint`; one that runs here costs time alone"
                )
            return self
        if self.student.model is None:
            raise ValueError(
                f"`student.model` is missing: the teacher `{teacher.name}` is behind an endpoint, so there is nothing "
                "to cut a student from; name the model that is to learn"
            )
        if budget.usd is not None and teacher.price is None:
            raise ValueError("`teach.budget.usd` needs the teacher's `price`: `{input_usd: …, output_usd: …}`")
        for name, field in Asking.model_fields.items():
            if getattr(self.teach, name) != field.default:
                raise ValueError(f"`teach.{name}` is for a teacher that runs here, and `{teacher.name}` does not")
        return self

    @model_validator(mode="after")
    def _selectable(self) -> Recipe:
        select = self.teach.select
        if select is None:
            return self
        if len(self.teachers) > 1:
            raise ValueError(f"`teach.select` asks one teacher round by round, and there are {len(self.teachers)}")
        if self.teach.budget.minutes is not None:
            raise ValueError(
                "`teach.budget.minutes`: with `teach.select` the clock would decide what is bought; bound usd, tokens "
                "or requests"
            )
        if self.train.on_policy:
            raise ValueError(
                "`train.on_policy` learns from what the student writes, and `teach.select` goes by what given answers "
                "teach: take one of them out"
            )
        if self.student.heal:
            raise ValueError(
                "`student.heal` would heal another student in every round of `teach.select`: take one of them out"
            )
        if select.by == "uncertainty" and self.student.head == "tags":
            raise ValueError(
                "`teach.select.by: uncertainty` goes by what a student writes, and `student.head: tags` does not "
                "write: set it to random"
            )
        return self

    @model_validator(mode="after")
    def _nothing_leaves(self) -> Recipe:
        if self.privacy.egress == "anywhere":
            return self
        asked = {f"the teacher `{t.name}`": t.base_url for t in self.teachers if isinstance(t, EndpointTeacher)}
        if self.evaluate.judge and self.evaluate.judge.base_url:
            asked["`evaluate.judge`"] = self.evaluate.judge.base_url
        for who, where in asked.items():
            if not self.privacy.is_local(where):
                raise ValueError(
                    f"{who} is at {urlsplit(where).netloc}, and `privacy.egress: local-only` lets no text leave this "
                    "machine"
                )
        return self

    @property
    def teacher(self) -> TransformersTeacher | EndpointTeacher:
        """The first: the student is cut from it, and tables compare with it."""
        return self.teachers[0]

    def shareable(self) -> dict[str, Any]:
        """`resolved()` with every path cut down to its name: what may travel with a bundle or a report.

        Where a file lay on somebody's disk is nobody's business, and must not change the key of what was made.
        """
        recipe = self.resolved() | {"privacy": self.privacy.shareable()}
        for part, keys in _PATHS:
            recipe[part] |= {key: Path(recipe[part][key]).name for key in keys if recipe[part].get(key)}
        if (heal := recipe["student"]["heal"]) and heal["text"]:
            heal["text"] = [Path(path).name for path in heal["text"]]
        for model in (*recipe["teachers"], recipe["student"], *filter(None, [recipe["evaluate"]["judge"]])):
            if model["model"] and Path(model["model"]).is_absolute():
                model["model"] = Path(model["model"]).name
        return recipe

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)
