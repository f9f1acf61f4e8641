"""What the stages that ask an endpoint have in common: who is asked, at what cost, and the ledger of a home."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import Settings
from slmops.recipe.teachers import EndpointTeacher
from slmops.recipe.teaching import Budget

if TYPE_CHECKING:
    from slmops.endpoints.ledger import Ledger
    from slmops.endpoints.money import Cost, Tariff

LEDGER = "endpoints.db"
"""The file of answers and charges in `Context.kept`."""

COST = "cost.json"
"""In an artifact of answers: what an endpoint took for them."""

ASKED = "asked.json"
"""In an artifact of rows: the keys of what a teacher was asked to write them."""


class EndpointAsking(Settings):
    """Who is asked, and what it may cost."""

    unkeyed: ClassVar[Mapping[str, Any]] = {
        "budget": True,
        "others": True,
        "privacy": {"egress"},
        "teacher": {"name", "key_env", "price", "concurrency", "retries", "timeout_s", "batch"},
    }
    """Raising a budget does not make answers anew; neither does a new key, a slower pace, or another teacher beside."""

    teacher: EndpointTeacher
    others: list[EndpointTeacher] = Field(default_factory=list, description="Who else answers for the same budget.")
    wrote: bool = Field(True, description="Whether it also wrote what was written: the cost is told with its answers.")
    budget: Budget
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)

    @property
    def libraries(self) -> tuple[str, ...]:
        """What reads the texts before they leave."""
        return () if self.privacy.is_local(self.teacher.base_url) else self.privacy.libraries

    def check_surroundings(self) -> None:
        """Refuse an endpoint whose key the environment does not have, and a detector that is not installed.

        Raises:
            BadInput: it has not, or is not.
        """
        from slmops.endpoints.client import key_of
        from slmops.privacy.presidio import check_detector

        key_of(self.teacher.key_env, f"the teacher {self.teacher.name}")
        check_detector(self.teacher.base_url, self.privacy)


class LocalAsking(Settings):
    """How a model on this machine is asked."""

    engine: Literal["onnxruntime-genai", "transformers"]
    batch: int


class Asked(Settings):
    """Who is asked: `endpoint`, and without one `local`."""

    unkeyed: ClassVar[Mapping[str, Any]] = {"endpoint": EndpointAsking.unkeyed}

    local: LocalAsking | None = None
    endpoint: EndpointAsking | None = None

    @property
    def bought(self) -> list[EndpointTeacher]:
        """Whose replies are."""
        return [self.endpoint.teacher] if self.endpoint else []

    @property
    def libraries(self) -> tuple[str, ...]:
        """See `EndpointAsking.libraries`."""
        asked = [self.endpoint.model_copy(update={"teacher": one}) for one in self.bought] if self.endpoint else []
        return tuple(dict.fromkeys(name for one in asked for name in one.libraries))

    def check_surroundings(self) -> None:
        """See `EndpointAsking.check_surroundings`."""
        if self.endpoint:
            self.endpoint.check_surroundings()


def buyer_of(teacher: EndpointTeacher) -> Callable[..., dict[str, str]]:
    """`slmops.endpoints.buying.buy`, or for a teacher that is asked in batches what takes its place."""
    from slmops.endpoints.batching import buy_batches
    from slmops.endpoints.buying import buy

    return buy if teacher.batch is None else partial(buy_batches, how=teacher.batch)


def tariff_of(teacher: EndpointTeacher) -> Tariff:
    """What its answers cost, asked as it is."""
    from slmops.endpoints.money import Tariff

    return Tariff.of(teacher.price, teacher.batch.discount if teacher.batch else 0.0)


@contextmanager
def opened(context: Context, budget: Budget) -> Iterator[Ledger]:
    """The home's ledger, for the length of a block; another run that asks meanwhile waits for its end."""
    from slmops.endpoints.ledger import Ledger
    from slmops.pipeline.locks import hold

    kept = context.kept or context.work
    kept.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        context.progress.note("another run is asking an endpoint; waiting, so that nothing is bought twice")

    with hold(kept / f"{LEDGER}.lock", on_wait=waiting), closing(Ledger(kept / LEDGER, budget)) as ledger:
        yield ledger


def asked_before(data: Path) -> list[str]:
    """The keys of what was asked for the rows in an artifact of rows: it counts against the budget as well."""
    path = data / ASKED
    keys: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return keys


def cost_of(spent: Cost, *, priced: bool) -> dict[str, Any]:
    """What was bought, as plain JSON; `usd` is null where no price is known."""
    return {"requests": spent.requests, "bought_tokens": spent.tokens, "usd": spent.usd if priced else None}


def cost_in(folder: Path) -> dict[str, Any] | None:
    """What endpoints took for the answers in an artifact; None of teachers that run here."""
    path = folder / COST
    told: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return told


def keep_sum(told: Sequence[Mapping[str, Any]], out: Path) -> dict[str, float | str]:
    """Write what several costs are together, and return it as figures; nothing where there are none.

    Args:
        told: as of `cost_of`.
    """
    if not told:
        return {}
    figures: dict[str, Any] = {name: sum(cost[name] for cost in told) for name in ("requests", "bought_tokens")}
    usd = [cost["usd"] for cost in told]
    whole = {**figures, "usd": None if None in usd else sum(usd)}
    (out / COST).write_text(json.dumps(whole) + "\n", encoding="utf-8")
    return {**figures, "usd": sum(one or 0.0 for one in usd)}
