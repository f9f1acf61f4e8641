"""Rows that resemble rows of other sides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.data.alike import Alike
from slmops.data.overlap import Overlap
from slmops.data.screen import screened
from slmops.recipe.data import ScreenSettings

HELD = "I have been waiting for my new card since last Tuesday and it still has not come"


def rows(*texts: str, prefix: str = "r") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{i}", "input": text} for i, text in enumerate(texts)]


def screen(
    texts: Sequence[str],
    *,
    held: Sequence[str] = (),
    beside: Sequence[str] = (),
    kind: str = "generation",
    **settings: Any,
) -> tuple[list[str], list[dict[str, Any]]]:
    kept, dropped = screened(
        rows(*texts),
        "pool",
        held={"test": rows(*held, prefix="t")},
        beside={"train": rows(*beside, prefix="b")},
        settings=ScreenSettings(**settings),
        kind=kind,
    )
    assert sorted(row["id"] for row in [*kept, *dropped]) == sorted(row["id"] for row in rows(*texts))
    return [row["input"] for row in kept], dropped


NEAR = HELD.replace("come", "came")
HOLDS = f"Hello there, I am new to this. {' '.join(HELD.split()[:14])}, so what can I do about it now?"
TWIN, ITS_TWIN = "How do I change the address on my account?", "how do I change the address on my accounts"


def test_each_check_says_what_a_row_is_like() -> None:
    kept, dropped = screen([NEAR, HOLDS, TWIN, "Something else"], held=[HELD], beside=[ITS_TWIN])
    assert kept == ["Something else"]
    told = [(row["id"], row["side"], row["stage"], row["reason"], row["like"], row["detail"]) for row in dropped]
    assert told == [
        ("r0", "pool", "data", "contaminated", "t0", "like a row of test: 92% of their shingles are the same"),
        ("r1", "pool", "data", "contaminated", "t0", "holds 82% of the words of a row of test"),
        ("r2", "pool", "data", "near duplicate", "b0", "like a row of train: 97% of their shingles are the same"),
    ]
    assert [row["similarity"] for row in dropped] == [0.9241, 0.8235, 0.9737]


@pytest.mark.parametrize(
    ("setting", "stays"),
    [
        ({"contaminated": None}, set()),
        ({"overlap": None}, {HOLDS}),
        ({"contaminated": None, "overlap": None}, {NEAR, HOLDS}),
        ({"overlap": 0.9}, {HOLDS}),
        ({"run_words": 15}, {HOLDS}),
        ({"near_duplicates": None}, {TWIN}),
        ({"near_duplicates": 1.0}, {TWIN}),
    ],
)
def test_each_check_can_be_set_and_turned_off(setting: dict[str, Any], stays: set[str]) -> None:
    kept, _ = screen([NEAR, HOLDS, TWIN], held=[HELD], beside=[ITS_TWIN], **setting)
    assert set(kept) == stays, "a row near to another holds its words too"


def test_a_context_that_is_held_out_too_does_not_count() -> None:
    context = f"Context: {HELD}. {HELD}.\nQuestion: "
    held, asked = [context + "Who waits?"], [context + "What has not come?"]
    assert screen(asked, held=held, kind="qa")[0] == asked
    assert screen(asked, held=held, kind="generation")[0] == []
    assert screen([context + "who waits"], held=held, kind="qa")[0] == []


TEXTS = st.lists(
    st.lists(st.sampled_from(["ab", "card", "cart", "my", "pin", "is"]), min_size=1, max_size=8).map(" ".join),
    max_size=12,
)
FEW = {"run_words": 3}


@given(TEXTS, TEXTS, TEXTS, st.randoms(use_true_random=False))
def test_nothing_like_a_held_out_row_stays_whatever_the_order(
    texts: list[str], held: list[str], beside: list[str], chance: random.Random
) -> None:
    kept, _ = screen(texts, held=held, beside=beside, **FEW)
    alike, overlap = Alike([*kept, *held, *beside]), Overlap(held, 3)
    for place, text in enumerate(kept):
        among = range(len(kept), len(kept) + len(held))
        assert all(alike.similarity(place, other) < 0.85 for other in among)
        found = overlap.most(text)
        assert found is None or found.similarity < 0.5
        others = [*range(place), *range(len(kept) + len(held), len(alike))]
        assert all(alike.similarity(place, other) < 0.9 for other in others)
    assert screen(kept, held=held, beside=beside, **FEW) == (kept, []), "what stays, stays"
    mixed, _ = screen(chance.sample(texts, len(texts)), held=held, beside=beside, **FEW)
    assert sorted(mixed) == sorted(kept)
