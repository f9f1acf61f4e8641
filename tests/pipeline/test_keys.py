from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from slmops.errors import BadInput
from slmops.pipeline.keys import Provenance, address, in_order
from slmops.pipeline.stage import Node


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")

    rate: float = Field(1.0, alias="learning-rate")


class Stage:
    name = "stage"
    version = 1
    libraries = ("pydantic", "typer")

    def run(self, _inputs: Any, _settings: Any, _context: Any) -> dict[str, float | str]:
        raise AssertionError("keys are known before anything runs")


class NewerStage(Stage):
    version = 2


class OtherName(Stage):
    name = "other"


class OtherLibraries(Stage):
    libraries = ("pydantic",)


class UsesTyper(Free):
    @property
    def libraries(self) -> tuple[str, ...]:
        return ("typer",)


class Uninstalled(Stage):
    libraries = ("no-such-distribution",)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
settings = st.dictionaries(st.text(min_size=1), values, max_size=5)
names = st.dictionaries(st.text(), st.text(alphabet="0123456789abcdef", max_size=8), max_size=4)
provenances = st.builds(
    Provenance,
    stage=st.text(),
    version=st.integers(0, 9),
    settings=settings,
    inputs=names,
    sources=names,
    libraries=names,
    seed=st.integers(),
)


def backwards(value: Any) -> Any:
    """The same value with every object's keys in the other order."""
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@given(provenances)
def test_a_key_does_not_depend_on_the_order_of_anything_named(provenance: Provenance) -> None:
    turned = Provenance.model_validate(backwards(provenance.model_dump()))
    assert turned.key() == provenance.key()


@given(provenances, provenances)
def test_two_provenances_share_a_key_only_if_they_are_the_same(first: Provenance, second: Provenance) -> None:
    # Compared as text: in Python, but not in a recipe, 1 == 1.0 == True.
    same = repr(sorted_dump(first)) == repr(sorted_dump(second))
    assert (first.key() == second.key()) == same


@given(provenances)
def test_a_key_survives_the_manifest(provenance: Provenance) -> None:
    assert Provenance.model_validate_json(provenance.model_dump_json()).key() == provenance.key()


def sorted_dump(provenance: Provenance) -> Any:
    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(item) for item in value] if isinstance(value, list) else value

    return ordered(provenance.model_dump())


def key_of(node: Node, *others: Node, seed: int = 7) -> str:
    return {step.node.id: step.key for step in address([*others, node], seed)}[node.id]


def test_every_part_of_a_node_enters_its_key(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("one")
    (tmp_path / "other").write_text("two")
    upstream, downstream = Node("up", Stage, Free()), Node("up2", Stage, Free(kind=2))
    node = Node("n", Stage, Free(a=1), inputs={"in": "up"}, sources={"data": tmp_path / "data"})
    variants = [
        node,
        replace(node, stage=NewerStage),
        replace(node, stage=OtherName),
        replace(node, stage=OtherLibraries),
        replace(node, settings=Free(a=2)),
        replace(node, settings=Free(b=1)),
        replace(node, inputs={"in": "up2"}),
        replace(node, inputs={"renamed": "up"}),
        replace(node, inputs={"in": "up", "more": "up"}),
        replace(node, sources={"data": tmp_path / "other"}),
        replace(node, sources={"renamed": tmp_path / "data"}),
        replace(node, sources={}),
    ]
    keys = [key_of(variant, upstream, downstream) for variant in variants]
    keys.append(key_of(node, upstream, downstream, seed=8))
    assert len(set(keys)) == len(keys)


def test_settings_enter_by_alias_and_node_ids_do_not_enter() -> None:
    step = address([Node("n", Stage, Free.model_validate({"learning-rate": 0.5}))], 7)[0]
    assert step.provenance.settings == {"learning-rate": 0.5}
    assert key_of(Node("n", Stage, Free())) == key_of(Node("m", Stage, Free()))


def test_what_a_source_holds_enters_and_where_it_lies_does_not(tmp_path: Path) -> None:
    def key(path: Path) -> str:
        return key_of(Node("n", Stage, Free(), sources={"data": path}))

    for name in ("here", "there"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "rows.jsonl").write_text("{}")
    assert key(tmp_path / "here") == key(tmp_path / "there")
    assert key(tmp_path / "here" / "deep" / "rows.jsonl") == key(tmp_path / "there" / "deep" / "rows.jsonl")

    before = key(tmp_path / "here")
    (tmp_path / "here" / "deep" / "rows.jsonl").rename(tmp_path / "here" / "rows.jsonl")
    assert key(tmp_path / "here") != before
    (tmp_path / "here" / "rows.jsonl").write_text("{ }")
    assert key(tmp_path / "here") != before


def test_an_unreadable_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.jsonl: No such file"):
        address([Node("n", Stage, Free(), sources={"data": tmp_path / "nowhere.jsonl"})], 7)


def test_a_missing_library_is_named_with_its_remedy() -> None:
    with pytest.raises(BadInput, match=r"stage `n` needs the package `no-such-distribution`") as error:
        address([Node("n", Uninstalled, Free())], 7)
    assert error.value.hint == "pip install no-such-distribution"


def test_nodes_run_after_their_inputs_and_otherwise_in_the_given_order() -> None:
    nodes = [
        Node("last", Stage, Free(), inputs={"x": "first", "y": "middle"}),
        Node("free", Stage, Free()),
        Node("first", Stage, Free()),
        Node("middle", Stage, Free(), inputs={"x": "first"}),
    ]
    assert [node.id for node in in_order(nodes)] == ["first", "middle", "last", "free"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [("a", {"x": "c"}), ("b", {"x": "a"}), ("c", {"x": "b"})],
            "the graph has a cycle: a → c → b → a",
        ),
        ([("a", {"x": "a"})], "the graph has a cycle: a → a"),
        ([("a", {"x": "b"})], "node `a` takes `x` from `b`, which does not exist"),
        ([("a", {}), ("a", {})], "two nodes are called `a`"),
    ],
)
def test_what_is_not_a_graph_is_refused(nodes: list[tuple[str, dict[str, str]]], message: str) -> None:
    with pytest.raises(BadInput) as error:
        in_order([Node(name, Stage, Free(), inputs=inputs) for name, inputs in nodes])
    assert str(error.value) == message


def test_an_input_and_a_source_cannot_share_a_name(tmp_path: Path) -> None:
    nodes = [Node("a", Stage, Free()), Node("b", Stage, Free(), inputs={"x": "a"}, sources={"x": tmp_path})]
    with pytest.raises(BadInput, match="both an input and a source called `x`"):
        in_order(nodes)


def test_a_library_that_the_settings_ask_for_is_in_the_key():
    plain, more = (
        address([Node("a", OtherLibraries, settings)], 7)[0].provenance for settings in (Free(), UsesTyper())
    )
    assert set(plain.libraries) == {"pydantic"}
    assert set(more.libraries) == {"pydantic", "typer"}
    assert plain.key() != more.key()
