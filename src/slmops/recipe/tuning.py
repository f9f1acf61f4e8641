"""Which weights of a model move while it learns: all of them, or those of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from slmops.recipe.settings import Settings, Share

Method = Literal["full", "lora", "rslora", "dora", "qlora", "ia3", "bottleneck", "prompt"]

LOW_RANK = frozenset({"lora", "rslora", "dora", "qlora"})
MERGEABLE = LOW_RANK | {"ia3"}
"""Adapters that become part of the weights: what comes out is a plain model."""

Backend = Literal["slmops", "olive"]

OLIVE: Mapping[str, str] = {"lora": "LoRA", "dora": "DoRA", "qlora": "QLoRA"}
"""Methods that Olive has, by the names of its passes."""

_LEARNING_RATE: Mapping[str, float] = {
    "full": 2e-4,
    **dict.fromkeys(LOW_RANK, 1e-3),
    "ia3": 1e-2,
    "bottleneck": 1e-3,
    "prompt": 3e-2,
}
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    **{method: {"rank": 16, "alpha": 32} for method in LOW_RANK},
    "rslora": {"rank": 64, "alpha": 16},
    "bottleneck": {"width": 64},
    "prompt": {"tokens": 16},
}
"""A low-rank update of any of these counts twice: alpha / rank, for rslora alpha / √rank."""


class AdapterSettings(Settings):
    """The size of an adapter. Each method has some of these keys, and fills in what is null."""

    rank: int | None = Field(None, ge=1, description="Of the update: 16, with rslora 64 (lora, rslora, dora, qlora).")
    alpha: int | None = Field(
        None,
        ge=1,
        description="The update counts alpha / rank times, with rslora alpha / √rank times: 32, with rslora 16.",
    )
    dropout: Share = Field(0.0, description="Share of the update's inputs that are left out in training.")
    width: int | None = Field(None, ge=1, description="Of the inner layer of a bottleneck: 64.")
    tokens: int | None = Field(None, ge=1, description="Of a learned prompt: 16.")


class Adapter(Settings):
    """An adapter to make, every size of its method known."""

    method: Method
    backend: Backend = "slmops"
    rank: int = 0
    alpha: int = 0
    dropout: float = 0.0
    width: int = 0
    tokens: int = 0

    @property
    def merges(self) -> bool:
        """Whether it becomes part of the weights."""
        return self.method in MERGEABLE


def with_defaults(given: Any) -> Any:
    """Settings with a `method`, and the method's own learning rate and sizes where none are given."""
    if not isinstance(given, Mapping) or given.get("method", "full") not in _LEARNING_RATE:
        return given
    method = given.get("method", "full")
    filled = {"learning_rate": _LEARNING_RATE[method], **given}
    sizes, own = given.get("adapter") or {}, _DEFAULTS.get(method, {})
    if isinstance(sizes, AdapterSettings):
        sizes = sizes.model_dump()
    if isinstance(sizes, Mapping):
        told = {name: value for name, value in sizes.items() if value is not None}
        filled["adapter"] = {**own, **told}
    return filled


class Tuned(Settings):
    """The part of a training that says which weights move."""

    method: Method = Field(
        "full",
        description="full moves every weight; the others leave them still and train an adapter beside them "
        "(docs/guides/finetune.md).",
    )
    adapter: AdapterSettings = Field(
        default_factory=AdapterSettings, description="Its size, where it is to be another."
    )
    backend: Backend = Field(
        "slmops",
        description="What trains an adapter: the trainer here or, of lora, dora and qlora, Olive's pass of that name; "
        "needs `slmops[olive]` (docs/guides/finetune.md).",
    )

    @model_validator(mode="after")
    def _sizes_of_the_method(self) -> Tuned:
        known = {*_DEFAULTS.get(self.method, {}), *({"dropout"} if self.method in LOW_RANK else ())}
        given = {name for name, value in self.adapter.model_dump().items() if value}
        if odd := sorted(given - known):
            has = f"it has {', '.join(sorted(known))}" if known else "it has no size"
            raise ValueError(f"`adapter.{odd[0]}` is not of `method: {self.method}`: {has}")
        return self

    @model_validator(mode="after")
    def _method_of_the_backend(self) -> Tuned:
        if self.backend == "olive" and self.method not in OLIVE:
            raise ValueError(f"`backend: olive` trains `method: {', '.join(OLIVE)}`, and not `{self.method}`")
        return self

    @property
    def to_make(self) -> Adapter | None:
        """The adapter that is trained; None where every weight moves."""
        if self.method == "full":
            return None
        sizes = {name: value for name, value in self.adapter.model_dump().items() if value is not None}
        return Adapter(method=self.method, backend=self.backend, **sizes)
