"""Several adapters on one base: what each is trained for, and how they become one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from slmops.recipe.compress import CompressSettings
from slmops.recipe.data import DataSettings
from slmops.recipe.evaluate import EvaluateSettings
from slmops.recipe.settings import FolderName, Settings
from slmops.recipe.student import StudentSettings
from slmops.recipe.task import TaskSettings
from slmops.recipe.training import TrainSettings

PARTS = ("task", "data", "train", "evaluate")
"""Parts of a recipe that each adapter has of its own."""

Merging = Literal["linear", "cat", "ties", "dare_linear", "dare_ties"]
"""As PEFT calls them."""

_PRUNING = frozenset({"ties", "dare_linear", "dare_ties"})
_DENSITY = 0.5
SLOTTED = frozenset({"lora", "rslora"})
"""Methods whose parts PEFT adds up, and that stand beside a base as they are."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class OneAdapter(Settings):
    """One of several adapters on `student.model`. A key that a part lacks is that of the recipe's part of this name."""

    task: TaskSettings = Field(description="What it does.")
    data: DataSettings = Field(description="Where its rows come from.")
    train: TrainSettings = Field(
        default_factory=TrainSettings,
        description="How it learns, by a `method` that leaves the base as it is. A method of its own has its own "
        "learning rate and sizes too.",
    )
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="What is measured of it.")


class MergeSettings(Settings):
    """Adapters of lora or rslora that become one (PEFT's `add_weighted_adapter`), measured on the task of each."""

    name: FolderName | None = Field(None, description="What tables call it; the method when absent.")
    method: Merging = Field(
        description="cat: the sum of the updates, exactly, at the sum of their ranks. The others join factor by factor "
        "and keep the rank, which is to be the same: linear adds, ties keeps the largest entries and of each the "
        "sign that most is for, dare_linear and dare_ties keep entries drawn by chance.",
    )
    of: list[str] | None = Field(None, description="Which adapters; null takes all.")
    weights: dict[str, float] = Field(
        default_factory=dict, description="How often the update of each counts; 1 where none is given."
    )
    density: float | None = Field(
        None, gt=0, lt=1, description="Share of an adapter's entries that ties, dare_linear and dare_ties keep: 0.5."
    )

    @model_validator(mode="after")
    def _pruned_where_it_is(self) -> MergeSettings:
        if self.density is not None and self.method not in _PRUNING:
            raise ValueError(f"`density` is of ties, dare_linear and dare_ties; {self.method} keeps every entry")
        return self

    @property
    def called(self) -> str:
        """Its name in tables."""
        return self.name or self.method

    @property
    def kept(self) -> float | None:
        """Share of the entries that are kept; None where all are."""
        return (self.density or _DENSITY) if self.method in _PRUNING else None

    def weighted(self, adapters: Sequence[str]) -> dict[str, float]:
        """The adapters that are merged, out of all in the recipe's order, with their weights."""
        return {name: self.weights.get(name, 1.0) for name in adapters if self.of is None or name in self.of}


def handed_down(given: Any) -> Any:
    """A recipe as it is written with every adapter's parts made whole by the recipe's own.

    A recipe whose adapters all have tasks and rows of their own has those of the first.
    """
    adapters = given.get("adapters") if isinstance(given, Mapping) else None
    if not isinstance(adapters, Mapping) or not all(isinstance(one, Mapping) for one in adapters.values()):
        return given
    whole = {name: _whole(one, given) for name, one in adapters.items()}
    first = next(iter(whole.values()), {})
    own = {part: first[part] for part in ("task", "data") if part in first and part not in given}
    return {**given, **own, "adapters": whole}


def _whole(one: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: _joined(part, recipe.get(part), one.get(part)) for part in PARTS}
    return {**one, **{part: value for part, value in parts.items() if value is not None}}


def _joined(part: str, recipes: Any, own: Any) -> Any:
    """A part with what it lacks; as it is where it is no mapping."""
    if own is None or recipes is None:
        return recipes if own is None else own
    above, below = _plain(recipes), _plain(own)
    if not (isinstance(above, Mapping) and isinstance(below, Mapping)):
        return own
    if part == "task" and below.get("kind", above.get("kind")) != above.get("kind"):
        return own
    if part == "train" and below.get("method", above.get("method")) != above.get("method"):
        above = {name: value for name, value in above.items() if name not in ("learning_rate", "adapter")}
    return {**above, **below}


def _plain(part: Any) -> Any:
    return part.model_dump(exclude_unset=True, by_alias=True) if isinstance(part, BaseModel) else part


def check_base(student: StudentSettings) -> None:
    """Refuse a student that is no whole model, which all adapters can stand beside.

    Raises:
        ValueError: says why.
    """
    if student.model is None:
        raise ValueError("`student.model` is missing: it is the base that all `adapters` share")
    if asked := [name for name in ("carve", "heal") if name in student.model_fields_set]:
        raise ValueError(f"`student.{asked[0]}`: `adapters` share `student.model` as it is: leave it out")
    if student.head == "tags":
        raise ValueError("`student.head: tags` is a head to train, and `adapters` share the base's: leave it out")


def check_adapters(adapters: Mapping[str, OneAdapter]) -> None:
    """Refuse adapters that one base cannot have side by side.

    Raises:
        ValueError: says which and why.
    """
    for name, adapter in adapters.items():
        method = adapter.train.method
        if not _NAME.fullmatch(name):
            raise ValueError(f"`adapters.{name}`: a name has lower-case letters, digits, `.`, `_` and `-`")
        if method == "full":
            raise ValueError(
                f"`adapters.{name}.train.method` is full, which moves the base that all adapters share: take lora"
            )
        if method == "qlora":
            raise ValueError(
                f"`adapters.{name}.train.method` is qlora, which learns beside weights in four bits: that is another "
                "base than `student.model`, which the others share: take lora"
            )


def without_rows(given: Any) -> Any:
    """A recipe as it is written, whose `compress` rounds what adapters share as its settings say, or by no rows."""
    adapters = given.get("adapters") if isinstance(given, Mapping) else None
    if not isinstance(adapters, Mapping) or not all(isinstance(one, Mapping) for one in adapters.values()):
        return given
    trained, own = [_plain(one.get("train")) for one in adapters.values()], _plain(given.get("compress")) or {}
    if not all(isinstance(train, Mapping) and train.get("method") in SLOTTED for train in trained):
        return given
    return (
        {**given, "compress": {"precision": "int8", "algorithm": "rtn", **own}} if isinstance(own, Mapping) else given
    )


def check_slots(compress: CompressSettings, *, searched: bool) -> None:
    """Refuse what a base that several adapters share is not made small by.

    Raises:
        ValueError: says what and why.
    """
    if searched:
        raise ValueError("`compress.search` looks for one model, and `adapters` share a base: leave it out")
    if compress.runtime != "onnxruntime-genai":
        raise ValueError(f"`compress.runtime: {compress.runtime}` runs no adapters: take onnxruntime-genai")
    if compress.trims:
        raise ValueError(
            "`compress.vocabulary: trim` goes by the rows of one task, and the base of several `adapters` is for all "
            "of theirs: leave it out"
        )
    if compress.calibrated:
        raise ValueError(
            "`compress` goes by the rows of one task, and the base of several `adapters` is for all of theirs: set "
            "`algorithm` to rtn or k_quant, without `int8_layers` and `sparsity`"
        )


def check_merges(merges: Sequence[MergeSettings], adapters: Mapping[str, OneAdapter]) -> None:
    """Refuse what cannot become one.

    Raises:
        ValueError: says what and why.
    """
    names = [merge.called for merge in merges]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"`merge`: two are called {twice[0]}; give each a `name` of its own")
    for place, merge in enumerate(merges):
        at, own = f"merge.{place}", merge.weighted(list(adapters))
        for key, given, known in (("of", merge.of or (), adapters), ("weights", merge.weights, own)):
            if odd := [name for name in given if name not in known]:
                raise ValueError(f"`{at}.{key}`: `{odd[0]}` is none of {', '.join(known)}")
        if len(own) < 2:
            raise ValueError(f"`{at}.of`: it takes two adapters to merge any")
        for name in own:
            method = adapters[name].train.method
            if method not in SLOTTED:
                raise ValueError(f"`{at}`: `{name}` has `train.method: {method}`; only lora and rslora can be merged")
        ranks = {name: adapters[name].train.adapter.rank for name in own}
        if merge.method != "cat" and len(set(ranks.values())) > 1:
            told = ", ".join(f"{name} has {rank}" for name, rank in ranks.items())
            raise ValueError(f"`{at}.method: {merge.method}` needs adapters of one rank, and {told}: take cat")
