"""What a recipe may say. Every default of the product stands in this folder and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from slmops.recipe.chat_template import TextTemplate
from slmops.recipe.compress import Compress
from slmops.recipe.data import DataSettings
from slmops.recipe.evaluate import EvaluateSettings
from slmops.recipe.objective import TextTerm
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import FolderName, Settings, one_or_more
from slmops.recipe.several import (
    PARTS,
    SLOTTED,
    MergeSettings,
    OneAdapter,
    check_adapters,
    check_base,
    check_merges,
    check_slots,
    handed_down,
    without_rows,
)
from slmops.recipe.student import StudentSettings
from slmops.recipe.task import ExtractionTask, TaskSettings
from slmops.recipe.teachers import Asking, BundleTeacher, EndpointTeacher, Teacher, TransformersTeacher, draws_of
from slmops.recipe.teaching import Budget, TeachSettings
from slmops.recipe.training import TrainSettings
from slmops.recipe.trials import LOSS, TuneSettings


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
        description="Where a local teacher answers its batches: here, or on a Ray cluster that sees the same files "
        "(needs `slmops[ray]`). The answers are the same.",
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
    def _several_on_one_base(self) -> Recipe:
        if not self.adapters:
            if self.merge:
                raise ValueError("`merge` is of `adapters`, and this recipe has none")
            return self
        if self.teachers:
            raise ValueError(
                "`teachers` and `adapters` exclude each other: adapters learn from labelled rows, and a student that "
                "is distilled has a recipe of its own"
            )
        check_base(self.student)
        check_adapters(self.adapters)
        check_merges(self.merge, self.adapters)
        if self.slots:
            check_slots(self.compress, searched=self.compress.search is not None)
        elif asked := [name for name in ("compress", "bundle") if name in self.model_fields_set]:
            odd = next(name for name, one in self.adapters.items() if one.train.method not in SLOTTED)
            raise ValueError(
                f"`{asked[0]}`: `{odd}` has `train.method: {self.adapters[odd].train.method}`, which does not stand "
                "beside a base, so nothing ships: leave it out, or take lora"
            )
        return self

    @model_validator(mode="after")
    def _each_by_itself(self) -> Recipe:
        for name in self.adapters:
            try:
                self.of_adapter(name)
            except ValidationError as error:
                raise ValueError(f"`adapters.{name}`: {error.errors()[0]['ctx']['error']}") from None
        return self

    @model_validator(mode="after")
    def _fine_tuned_alone(self) -> Recipe:
        """Without a teacher: what has a meaning then, and what does not."""
        if self.teachers:
            if self.train.to_make and not self.train.to_make.merges:
                raise ValueError(
                    f"`train.method: {self.train.method}` leaves an adapter that cannot be merged, so what is "
                    "distilled could not ship: take lora"
                )
            return self
        student, train = self.student, self.train
        if student.model is None:
            raise ValueError(
                "there is nobody to learn from: name a teacher in `teachers`, or, to fine-tune a model on the labelled "
                "rows alone, set `student.model`"
            )
        without = {
            "data.pool": self.data.pool is not None,
            "teach": self.teach != TeachSettings(),
            "student.carve": "carve" in student.model_fields_set,
            "student.heal": student.heal is not None,
            "train.normalise": train.normalise,
            "train.on_policy": train.on_policy is not None,
            "train.baseline_epochs": "baseline_epochs" in train.model_fields_set,
            "train.max_cut_off": "max_cut_off" in train.model_fields_set,
            "train.objective": "objective" in train.model_fields_set
            and any(term.kind not in ("text", "custom") for term in train.objective),
            "compress.recover": self.compress.recover is not None,
        }
        if asked := [name for name, wanted in without.items() if wanted]:
            raise ValueError(f"`{asked[0]}` needs a teacher, and this recipe has none: take it out, or name one")
        if student.head == "tags" and train.method != "full":
            raise ValueError(f"`student.head: tags` is a head to train, and `train.method: {train.method}` trains none")
        if not (self.adapters or self.ships) and (
            asked := [name for name in ("compress", "bundle") if name in self.model_fields_set]
        ):
            raise ValueError(
                f"`{asked[0]}`: an adapter of `train.method: {train.method}` cannot be merged, so nothing ships: leave "
                "it out, or take lora"
            )
        return self

    @model_validator(mode="after")
    def _words_through_olive(self) -> Recipe:
        """Olive's trainer knows no teacher, only what one said."""
        learned = [term.kind for term in self.train.objective] if self.teachers else ["text"]
        if self.train.backend == "olive" and (learned != ["text"] or self.train.on_policy):
            raise ValueError(
                "`train.backend: olive` learns given words alone: set `train.objective: {kind: text}`, without "
                "`train.on_policy`, or leave `backend` out"
            )
        return self

    @model_validator(mode="after")
    def _something_to_judge(self) -> Recipe:
        judge = self.judge
        if judge is None:
            return self
        if sum(draws_of(teacher) for _, teacher in self.answering) == 1:
            raise ValueError("`teach.combine.how: judged` has nothing to judge: one teacher answers, and its `n` is 1")
        if isinstance(judge, BundleTeacher):
            raise ValueError(f"`{judge.name}` is a bundle, which answers its own task and judges nothing")
        if draws_of(judge) > 1:
            raise ValueError(f"`{judge.name}` judges each row once: leave its `n` at 1")
        if isinstance(judge, TransformersTeacher) and judge.fit and "fit" in judge.model_fields_set:
            raise ValueError(f"`{judge.name}` judges as it is: its `fit` would teach it to answer; leave it out")
        return self

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
        if self.task.kind not in ("extraction", "classification", "nli"):
            raise ValueError(
                f"`student.head: tags` is for extraction, classification and nli, and `task.kind` is {self.task.kind}"
            )
        terms = self.train.objective if "objective" in self.train.model_fields_set else []
        if any(isinstance(term, TextTerm) and not term.plain for term in terms):
            raise ValueError(
                "`student.head: tags` learns labels, and `label_smoothing`, `focal` and `class_weights` are for a "
                "student that writes: leave them out"
            )
        if any(term.kind != "text" for term in terms):
            raise ValueError(
                "`student.head: tags` learns labels, and `train.objective` compares next tokens or layers: leave it "
                "out, or set it to `kind: text`"
            )
        return self

    @model_validator(mode="after")
    def _instruction_has_a_place(self) -> Recipe:
        asked = {"student": self.student.chat_template}
        asked |= {
            f"teachers.{i}": teacher.chat_template
            for i, teacher in enumerate(self.teachers)
            if isinstance(teacher, TransformersTeacher)
        }
        for place, template in asked.items():
            if self.task.instruction and isinstance(template, TextTemplate) and template.system is None:
                raise ValueError(
                    f"`task.instruction` is a system message, and `{place}.chat_template` has no `system` to put it in"
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
    def _thinking_that_can_be_learned(self) -> Recipe:
        for teacher in self.endpoints:
            if teacher.reasoning == "strip":
                continue
            if teacher is self.judge:
                raise ValueError(f"`{teacher.name}` judges, so nothing that it thinks is learned: `reasoning: strip`")
            if self.task.kind in ("extraction", "classification", "nli"):
                raise ValueError(
                    f"`{teacher.name}` has `reasoning: keep`, and an answer of {self.task.kind} is closed: no thinking "
                    "can stand in it; set it to strip"
                )
        return self

    @model_validator(mode="after")
    def _learnable_from_an_endpoint(self) -> Recipe:
        budget, bought = self.teach.budget, self.endpoints
        if not bought and budget != Budget():
            raise ValueError("`teach.budget` is for a teacher of `kind: endpoint`; one that runs here costs time alone")
        if budget.usd is not None and (free := [teacher.name for teacher in bought if teacher.price is None]):
            raise ValueError(
                f"`teach.budget.usd` needs the `price` of the teacher `{free[0]}`: `{{input_usd: …, output_usd: …}}`"
            )
        if not self.words_alone:
            return self
        first = next(teacher for _, teacher in self.answering if not isinstance(teacher, TransformersTeacher))
        if self.student.model is None:
            what = "behind an endpoint" if isinstance(first, EndpointTeacher) else "a bundle"
            raise ValueError(
                f"`student.model` is missing: the teacher `{first.name}` is {what}, so there is nothing to cut a "
                "student from; name the model that is to learn"
            )
        kinds = {type(teacher) for teacher in self.teachers}
        for name, field in Asking.model_fields.items():
            if getattr(self.teach, name) == field.default:
                continue
            if name == "top_logits" and kinds != {EndpointTeacher}:
                raise ValueError(f"`teach.{name}`: no probabilities are kept, since `{first.name}` gives words alone")
            if TransformersTeacher not in kinds and not (name == "batch" and BundleTeacher in kinds):
                where = "runs here" if kinds == {EndpointTeacher} else "is exported here"
                raise ValueError(f"`teach.{name}` is for a teacher that {where}, and `{first.name}` does not")
        return self

    @model_validator(mode="after")
    def _written_by_who_can(self) -> Recipe:
        asked = [name for name in ("write", "converse", "reason") if getattr(self.teach, name)]
        if asked and isinstance(self.teacher, BundleTeacher):
            raise ValueError(
                f"`teach.{asked[0]}` is the first teacher's work, and `{self.teacher.name}` is a bundle, which only "
                "answers its task: put another teacher first"
            )
        return self

    @model_validator(mode="after")
    def _user_can_be_asked(self) -> Recipe:
        user = self.user
        if not isinstance(user, EndpointTeacher):
            return self
        if not isinstance(self.teacher, EndpointTeacher):
            raise ValueError(
                f"`teach.converse.user`: `{user.name}` is behind an endpoint and the teacher `{self.teacher.name}` is "
                "not, so no budget is kept: take one for the user that runs here"
            )
        if self.teach.budget.usd is not None and user.price is None:
            raise ValueError("`teach.budget.usd` needs the `price` of `teach.converse.user` too")
        return self

    @model_validator(mode="after")
    def _selectable(self) -> Recipe:
        select = self.teach.select
        if select is None:
            return self
        if len(self.teachers) > 1:
            raise ValueError(f"`teach.select` asks one teacher round by round, and there are {len(self.teachers)}")
        if isinstance(self.teacher, BundleTeacher):
            raise ValueError("`teach.select` is for answers that cost something, and a bundle answers all at once")
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
    def _can_be_tuned(self) -> Recipe:
        tune = self.tune
        if tune is None:
            return self
        if self.teach.select:
            raise ValueError(
                "`tune`: with `teach.select` a student's settings decide which rows are bought, so every trial would "
                "buy others: take one of them out"
            )
        watched = {"`tune.prune`": tune.prune is not None, f"`tune.figure: {LOSS}`": tune.figure == LOSS}
        if (asked := [name for name, wanted in watched.items() if wanted]) and self.train.stop_early is None:
            raise ValueError(f"{asked[0]} goes by the validation loss, which only `train.stop_early` has measured")
        if tune.prune and (moved := [name for name in tune.space if name.startswith("train.stop_early")]):
            raise ValueError(
                f"`tune.prune` compares trials after as many passes, and `{moved[0]}` changes when they are looked at"
            )
        return self

    @model_validator(mode="after")
    def _nothing_leaves(self) -> Recipe:
        if self.privacy.egress == "anywhere":
            return self
        asked = {f"the teacher `{teacher.name}`": teacher.base_url for teacher in self.endpoints}
        if isinstance(self.user, EndpointTeacher):
            asked["`teach.converse.user`"] = self.user.base_url
        if self.evaluate.judge and self.evaluate.judge.base_url:
            asked["`evaluate.judge`"] = self.evaluate.judge.base_url
        for who, where in asked.items():
            if not self.privacy.is_local(where):
                raise ValueError(
                    f"{who} is at {urlsplit(where).netloc}, and `privacy.egress: local-only` lets no text leave this "
                    "machine"
                )
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
