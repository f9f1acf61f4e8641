"""What may leave this machine, and what is taken out of it first."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from slmops.recipe.settings import Settings

BuiltIn = Literal["email", "phone", "iban", "card", "national_id", "ip", "url", "secret"]
KINDS: tuple[BuiltIn, ...] = get_args(BuiltIn)

Country = Literal[
    "at",
    "be",
    "br",
    "ca",
    "ch",
    "cl",
    "cn",
    "cz",
    "de",
    "dk",
    "es",
    "fi",
    "fr",
    "gb",
    "hr",
    "ie",
    "in",
    "it",
    "kr",
    "mx",
    "nl",
    "no",
    "pl",
    "ro",
    "se",
    "sk",
    "tr",
    "us",
    "za",
]
COUNTRIES: tuple[Country, ...] = get_args(Country)

PatternName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def is_loopback(base_url: str) -> bool:
    """Whether an address is this machine's own: `localhost`, 127.0.0.0/8 or ::1. No name is looked up."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Presidio(Settings):
    """How Microsoft Presidio looks, with `detector: presidio`; it finds names and places, which no rule can."""

    model: str = Field(
        "en_core_web_sm", min_length=1, description="spaCy pipeline that is installed, or the folder of one."
    )
    language: str = Field("en", pattern=r"^[a-z]{2}$", description="Of the texts and of the pipeline.")
    entities: list[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]] = Field(
        ["PERSON", "LOCATION"], min_length=1, description="Presidio's names of what is taken out."
    )
    min_score: float = Field(0.5, ge=0, le=1, description="Below this confidence a finding does not count.")


class PrivacySettings(Settings):
    """What is taken out of every text before it leaves for an endpoint, and whether any may leave."""

    redact: list[BuiltIn] = Field(
        default_factory=lambda: list(KINDS), description="Kinds that are replaced by placeholders; `[]` leaves all in."
    )
    patterns: dict[PatternName, str] = Field(
        default_factory=dict, description="Kinds of your own: what finds them, as Python writes regular expressions."
    )
    phone_regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = Field(
        ["US", "GB", "DE", "FR"],
        description="Whose national ways to write a phone number are known; numbers with `+` are found anyway.",
    )
    national_ids: list[Country] = Field(
        default_factory=lambda: list(COUNTRIES), description="Countries whose personal numbers are known."
    )
    detector: Literal["rules", "presidio"] = Field(
        "rules", description="presidio: also what Microsoft Presidio finds (`slmops[presidio]`)."
    )
    presidio: Presidio = Field(default_factory=Presidio, description="For `detector: presidio`.")
    egress: Literal["anywhere", "local-only"] = Field(
        "anywhere", description="local-only refuses every endpoint that is not on this machine, before anything runs."
    )
    loopback: Literal["local", "remote"] = Field(
        "local",
        description="What an endpoint at localhost, 127.0.0.1 or ::1 is: local gets texts as they are, and no line in "
        "the log; remote, as for a gateway that sends them on, is treated as any other.",
    )

    @field_validator("patterns")
    @classmethod
    def _find_something(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            if name in KINDS:
                raise ValueError(f"`{name}` is a kind already; give yours another name")
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"`{name}` is no regular expression: {error}") from None
            if compiled.match(""):
                raise ValueError(f"`{name}` matches the empty text, so it would be found everywhere")
        return patterns

    @field_validator("phone_regions")
    @classmethod
    def _known_regions(cls, regions: list[str]) -> list[str]:
        from phonenumbers import SUPPORTED_REGIONS

        if odd := [region for region in regions if region not in SUPPORTED_REGIONS]:
            raise ValueError(f"{odd[0]} is no region with phone numbers; Great Britain is GB, Germany DE")
        return regions

    @model_validator(mode="after")
    def _presidio_is_asked_for(self) -> PrivacySettings:
        if self.presidio != Presidio() and self.detector != "presidio":
            raise ValueError("`presidio` is for `detector: presidio`")
        return self

    def is_local(self, base_url: str) -> bool:
        """Whether text that goes to this address counts as staying here."""
        return self.loopback == "local" and is_loopback(base_url)

    @property
    def libraries(self) -> tuple[str, ...]:
        """The distributions that find what is taken out, beside those of the rules; the spaCy pipeline is one."""
        if self.detector != "presidio":
            return ()
        model = () if Path(self.presidio.model).is_dir() else (self.presidio.model,)
        return ("presidio-analyzer", "spacy", *model)

    def shareable(self) -> dict[str, Any]:
        """As plain data without the user's own patterns, which may hold what they are to find."""
        return self.model_dump(mode="json") | {"patterns": dict.fromkeys(self.patterns, "…")}
