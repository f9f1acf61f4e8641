"""Who is looked at again and who ships, from figures alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe.compress import CompressSettings, Recover
from slmops.recipe.search import Objective, Tried
from slmops.search.candidates import candidates
from slmops.search.choice import Candidate, best, closest, finalists, front, on_front


def screened(name: str, loss: float, latency: float = 10.0, size: float = 100.0) -> Candidate:
    return Candidate(
        name, screen={"loss": loss, "latency_p50_ms": latency, "weights_bytes": size, "peak_rss_bytes": size}
    )


def measured(name: str, quality: float, latency: float, size: float, *verdicts: dict) -> Candidate:
    figures = {"quality": {"exact_match": quality}, "latency_p50_ms": latency, "weights_bytes": size}
    return Candidate(name, state="measured", figures=figures, verdicts=verdicts)


def verdict(state: str, *interval: float) -> dict:
    return {"state": state, "max": 1.0} | ({"interval": list(interval)} if interval else {})


def names(found: list[Candidate]) -> list[str]:
    return [one.name for one in found]


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(points)
def test_nobody_on_the_front_is_beaten_and_all_others_are(found) -> None:
    kept = front(found, lambda point: point)

    def beats(a, b) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    assert kept
    for one in found:
        assert (one in kept) == (not any(beats(other, one) for other in found))
        assert one in kept or any(beats(other, one) for other in kept)


def test_a_candidate_that_is_worse_in_everything_is_not_looked_at_again() -> None:
    found = [screened("good", 1.0), screened("worse", 1.1, 20, 200), screened("small", 2.0, 10, 50)]
    assert names(finalists(found, ["latency", "size"], 6)) == ["good", "small"]


def test_a_little_time_beats_nobody() -> None:
    """Of few requests a clock's noise would throw out the better of two that are as fast."""
    found = [screened("a", 1.0, 10.0), screened("b", 1.5, 10.05, 80)]
    assert names(finalists(found, ["latency"], 6)) == ["a"]
    found = [screened("a", 1.5, 10.0), screened("b", 1.5, 10.05)]
    assert names(finalists(found, ["latency"], 6)) == ["a", "b"]


def test_of_a_long_front_both_ends_and_what_lies_between_are_looked_at() -> None:
    found = [screened(str(i), float(i), 100.0 - 10 * i, 100.0 - i) for i in range(9)]
    assert names(finalists(found, ["size"], 3)) == ["0", "4", "8"]
    assert names(finalists(found, ["size"], 1)) == ["0"]


def test_the_second_objective_decides_between_those_that_are_as_good_in_the_first() -> None:
    found = [measured("a", 0.9, 10.0, 90), measured("b", 0.9, 10.4, 40), measured("c", 0.9, 11.0, 10)]
    assert best(found, ["latency", "size"]).name == "b"
    assert best(found, ["size", "latency"]).name == "c"


def test_proof_is_a_pass_of_every_bound() -> None:
    both = (verdict("pass", -1, 0.5), verdict("pass", 0, 1))
    assert measured("a", 0.9, 1, 1, *both).proven
    assert not measured("a", 0.9, 1, 1, both[0], verdict("not enough evidence", 0, 2)).proven
    assert not measured("a", 0.9, 1, 1).proven


COSTS: list[Objective] = ["latency", "size"]


def test_the_closest_is_the_one_whose_drop_passes_its_bound_by_least() -> None:
    found = [
        measured("a", 0.9, 1, 1, verdict("fail", 3, 5), verdict("pass", 0, 1)),
        measured("b", 0.8, 1, 1, verdict("not enough evidence", -1, 2.5)),
    ]
    assert closest(found, "exact_match", COSTS).name == "b"
    few = [measured("a", 0.9, 1, 1, verdict("not enough evidence")), measured("b", 0.8, 1, 1, verdict("fail", 1, 2))]
    assert few[0].excess == math.inf
    assert closest(few, "exact_match", COSTS).name == "b"
    better = measured("c", 0.95, 1, 1, verdict("not enough evidence"))
    assert closest([few[0], better], "exact_match", COSTS).name == "c"
    faster = measured("d", 0.9, 0.5, 1, verdict("not enough evidence"))
    assert closest([few[0], faster], "exact_match", COSTS).name == "d"


def test_the_front_is_of_quality_and_costs() -> None:
    found = [measured("a", 0.9, 10, 90), measured("b", 0.8, 12, 95), measured("c", 0.7, 9, 50)]
    assert names(on_front(found, "exact_match", ["latency", "size"])) == ["a", "c"]


def test_candidates_are_all_combinations_that_mean_something() -> None:
    tried = Tried(precision=["int4", "int8"], algorithm=["rtn", "gptq"], block_size=[32, 64], head=["int8"])
    found = candidates(tried, CompressSettings(calibration_tokens=512))
    four = [f"int4-{how}-b{block}-head8" for how in ("rtn", "gptq") for block in (32, 64)]
    assert [*found] == [*four, "int8"]
    assert {one.calibration_tokens for one in found.values()} == {512}
    assert found["int4-gptq-b64-head8"].calibrated
    assert len({one.model_dump_json() for one in found.values()}) == len(found)


def test_what_cannot_be_combined_is_not_tried() -> None:
    """k_quant always has zero points; recovery trains for rtn and one grid; fp32 has nothing to round."""
    tried = Tried(algorithm=["rtn", "k_quant"], block_size=[32], head=["int8"], int8_layers=[0, 2])
    plain = candidates(tried, CompressSettings(symmetric=False, block_size=64, head="int4"))
    assert [*plain] == ["int4-rtn-b32-head8", "int4-rtn-b32-head8-2x8", "int8", "fp32"]
    assert plain["fp32"] == CompressSettings(precision="fp32")
    recovered = candidates(tried, CompressSettings(recover=Recover()))
    assert [name for name in recovered if name.endswith("recovered")] == [
        "int4-rtn-b32-head8-recovered",
        "int8-recovered",
    ]
    assert recovered["int4-rtn-b32-head8"].recover is None


def test_every_runtime_has_what_its_format_has_room_for() -> None:
    tried = Tried(runtime=["onnxruntime-genai", "llama.cpp"], algorithm=["gptq"], block_size=[32, 64], head=["int8"])
    found = candidates(tried, CompressSettings())
    own, theirs = (
        ["int4-gptq-b32-head8", "int4-gptq-b64-head8", "int8", "fp32"],
        ["int4-gptq-b32-head8", "int8", "fp32"],
    )
    assert [*found] == [*own, *(f"{name}-llama.cpp" for name in theirs)]
    assert found["int8-llama.cpp"].runtime == "llama.cpp"
    # Without a list, it is the one that the recipe ships on.
    alone = candidates(Tried(precision=["int8"]), CompressSettings(runtime="llama.cpp"))
    assert [*alone] == ["int8-llama.cpp"]


def test_a_trimmed_vocabulary_is_tried_in_every_precision() -> None:
    tried = Tried(vocabulary=["keep", "trim"], algorithm=["gptq"], block_size=[32], head=["int8"])
    found = candidates(tried, CompressSettings(vocabulary="trim", extra_tokens=7))
    whole = ["int4-gptq-b32-head8", "int8", "fp32"]
    assert {*found} == {*whole, *(f"{name}-trimmed" for name in whole)}
    assert {one.extra_tokens for one in found.values() if one.trims} == {7}
    assert not any(found[name].trims for name in whole)
    assert [*candidates(Tried(precision=["int8"]), CompressSettings(vocabulary="trim"))] == ["int8-trimmed"]


def test_nothing_to_try_is_refused() -> None:
    tried = Tried(precision=["int4"], algorithm=["k_quant"])
    with pytest.raises(BadInput, match="nothing that is to be tried goes with the rest of compress"):
        candidates(tried, CompressSettings(symmetric=False))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Tried(int8_layers=[-1])


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_what_is_for_int4_alone_makes_no_other_candidates(precision) -> None:
    assert len(candidates(Tried(precision=[precision]), CompressSettings())) == 1
