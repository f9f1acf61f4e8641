"""What a recipe may say of privacy, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.errors import BadInput
from slmops.recipe import parse_recipe
from slmops.recipe.privacy import KINDS


@pytest.fixture
def recipe(tmp_path):
    for name in ("train.jsonl", "pool.jsonl", "test.jsonl"):
        (tmp_path / name).touch()

    def parse(privacy: dict[str, Any] | None = None, url: str = "https://api.example.com/v1", **more: Any):
        given: dict[str, Any] = {
            "name": "a",
            "task": {"kind": "classification"},
            "data": {"train": "train.jsonl", "pool": "pool.jsonl", "test": "test.jsonl"},
            "teachers": [{"kind": "endpoint", "base_url": url, "model": "big"}],
            "student": {"model": "wheel:none"},
            **({"privacy": privacy} if privacy is not None else {}),
            **more,
        }
        return parse_recipe(given, folder=tmp_path)

    return parse


def test_everything_is_taken_out_unless_told(recipe):
    assert tuple(recipe().privacy.redact) == KINDS
    assert recipe({"redact": ["email"]}).privacy.redact == ["email"]
    assert recipe().privacy.egress == "anywhere"


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        ({"patterns": {"customer": "C-(\\d+"}}, "privacy.patterns: `customer` is no regular expression"),
        ({"patterns": {"customer": "x*"}}, "matches the empty text"),
        ({"patterns": {"email": "x"}}, "`email` is a kind already"),
        ({"patterns": {"Customer No": "x"}}, "privacy.patterns"),
        ({"redact": ["mail"]}, "privacy.redact"),
        ({"phone_regions": ["UK"]}, "UK is no region"),
        ({"national_ids": ["xx"]}, "privacy.national_ids"),
        ({"egress": "nowhere"}, "allowed: 'anywhere' or 'local-only'"),
        ({"presidio": {"language": "de"}}, "`presidio` is for `detector: presidio`"),
        ({"redcat": []}, "did you mean privacy.redact?"),
    ],
)
def test_what_it_may_not_say(recipe, privacy, message):
    with pytest.raises(BadInput) as error:
        recipe(privacy)
    assert message in str(error.value)


def test_local_only_refuses_every_endpoint_elsewhere(recipe):
    judge = {"evaluate": {"judge": {"model": "big", "base_url": "https://judge.example/v1"}}}
    with pytest.raises(
        BadInput, match=r"the teacher `endpoint` is at api.example.com, and `privacy.egress: local-only`"
    ):
        recipe({"egress": "local-only"})
    with pytest.raises(BadInput, match=r"`evaluate.judge` is at judge.example"):
        recipe({"egress": "local-only"}, "http://localhost:8000/v1", **judge)
    with pytest.raises(BadInput, match="is at localhost:8000"):
        recipe({"egress": "local-only", "loopback": "remote"}, "http://localhost:8000/v1")
    assert recipe({"egress": "local-only"}, "http://localhost:8000/v1").privacy.egress == "local-only"


def test_what_travels_does_not_hold_the_users_patterns(recipe):
    made = recipe({"patterns": {"customer": "Zora Quist|C-\\d+"}})
    assert made.shareable()["privacy"]["patterns"] == {"customer": "…"}
    assert made.resolved()["privacy"]["patterns"] == {"customer": "Zora Quist|C-\\d+"}
