"""Copies of training rows say the same thing differently, and never what is held out."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from slmops.data.augment import augmented
from slmops.recipe.data import Augment

BOTH = Augment(typos=1.0, typo_words=0.5, case=1.0)
WORDS = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Zs", "Po"]), min_size=1, max_size=60)


def row(text: str, output: object = "late", id: str = "a") -> dict[str, object]:
    return {"id": id, "input": text, "output": output}


def test_a_copy_has_typos_or_other_case_and_the_same_answer():
    rows = [row(f"Where might order {n} be standing today?", id=str(n)) for n in range(40)]
    copies = augmented(rows, [], "classification", BOTH, seed=7)
    typos, case = ([one for one in copies if one["id"].endswith(name)] for name in ("~typos", "~case"))
    assert (len(typos), len(case)) == (40, 40)
    assert [one["id"] for one in typos] == [f"{n}~typos" for n in range(40)]
    for n, (mistyped, recased) in enumerate(zip(typos, case, strict=True)):
        assert mistyped["input"].lower() != rows[n]["input"].lower() == recased["input"].lower()
        assert f" {n} " in mistyped["input"]
    assert len({one["input"].isupper() for one in case}) == 2, "small letters and capitals both come"


@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(WORDS, max_size=4), st.integers(0, 99))
def test_copies_are_drawn_by_the_seed_and_are_new_texts(texts, held_out, seed):
    rows = [row(text, id=str(i)) for i, text in enumerate(texts)]
    held = [row(text) for text in held_out]
    copies = augmented(rows, held, "generation", BOTH, seed)
    assert copies == augmented(rows, held, "generation", BOTH, seed)
    told = [one["input"] for one in copies]
    assert len(set(told) | set(texts)) == len(told) + len(set(texts))
    assert not {text.casefold() for text in told} & {text.casefold() for text in held_out}


def test_what_an_answer_takes_from_its_text_stays():
    answer = {"intent": "late", "name": "Zoë Bergmann", "order": "BL-4711", "paid": 39.9, "gift": True}
    text = "Zoë Bergmann wants her delivery BL-4711 for 39.9 quickly"
    for seed in range(20):
        for copy in augmented([row(text, answer)], [], "extraction", BOTH, seed):
            assert all(value in copy["input"] for value in ("Zoë Bergmann", "BL-4711", "39.9"))
            assert copy["output"] == answer


def test_of_an_input_with_parts_the_asked_one_changes():
    pair = row("Premise: Nobody slept.\nHypothesis: Everybody slept soundly.")
    talk = row(json.dumps([{"role": "user", "content": c} for c in ("First message", "Second message")]))
    for copy in augmented([pair], [], "nli", BOTH, seed=1):
        assert copy["input"].startswith("Premise: Nobody slept.\nHypothesis: ")
    for copy in augmented([talk], [], "conversation", BOTH, seed=1):
        first, second = json.loads(copy["input"])
        assert first["content"] == "First message" != second["content"] != "Second message"


def test_where_nothing_can_change_there_is_no_copy():
    assert not augmented([row("4711"), row("ab, cd")], [], "classification", Augment(typos=1.0), seed=7)
    assert not augmented([row("lower")], [row("LOWER")], "classification", Augment(case=1.0), seed=7)
    assert not augmented([row("some words")], [], "classification", Augment(), seed=7)
