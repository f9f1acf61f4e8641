"""What the stages that ask an endpoint have in common: who is asked, at what cost, and the ledger of a home."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from slmops.pipeline.stage import Context
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.settings import Settings
from slmops.recipe.teaching import Budget
from slmops.recipe.training import EndpointTeacher

if TYPE_CHECKING:
    from slmops.endpoints.ledger import Ledger

LEDGER = "endpoints.db"
"""The file of answers and charges in `Context.kept`."""

ASKED = "asked.json"
"""In an artifact of rows: the keys of what a teacher was asked to write them."""


class EndpointAsking(Settings):
    """Who is asked, and what it may cost."""

    unkeyed: ClassVar[Mapping[str, Any]] = {
        "budget": True,
        "privacy": {"egress"},
        "teacher": {"name", "key_env", "price", "concurrency", "retries", "timeout_s"},
    }
    """Raising a budget does not make answers anew; neither does a new key or a slower pace."""

    teacher: EndpointTeacher
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
