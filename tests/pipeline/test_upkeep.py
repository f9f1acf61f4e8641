from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_toys import calls_in, chain, run_chain

from slmops.errors import SlmopsError
from slmops.pipeline.run import plan_graph
from slmops.pipeline.store import Store
from slmops.pipeline.upkeep import collect, usage, verify


def test_what_a_run_made_is_kept(home: Path, calls: Path) -> None:
    run_chain(home, chain(calls))
    assert collect(home).artifacts == 0
    assert all(step.cached for step in plan_graph(chain(calls), seed=7, home=home))


def test_what_no_run_made_is_freed(home: Path, calls: Path) -> None:
    run_chain(home, chain(calls))
    (home / "slmops.db").unlink()
    dry = collect(home, dry_run=True)
    assert dry.artifacts == 3
    assert len(Store(home).whole()) == 3
    before = usage(home)
    assert collect(home) == dry
    assert Store(home).whole() == []
    after = usage(home)
    assert before.artifacts_bytes - after.artifacts_bytes == dry.size_bytes > 0
    assert (before.artifacts, after.artifacts, after.artifacts_bytes, after.works_bytes) == (3, 0, 0, 0)


def test_older_runs_can_be_let_go(home: Path, calls: Path) -> None:
    for last in ("old", "new"):
        run_chain(home, chain(calls, last=last))
    assert collect(home, keep_runs=2).artifacts == 0
    assert collect(home, keep_runs=1).artifacts == 1
    assert [step.cached for step in plan_graph(chain(calls, last="old"), seed=7, home=home)] == [True, True, False]
    assert all(step.cached for step in plan_graph(chain(calls, last="new"), seed=7, home=home))
    assert run_chain(home, chain(calls, last="old")).artifacts["c"].cached is False


def test_leftovers_go_and_checkpoints_that_count_stay(home: Path, calls: Path) -> None:
    broken = chain(calls, error="a bug")
    with pytest.raises(ValueError, match="a bug"):
        run_chain(home, broken)
    store = Store(home)
    store.begin("0" * 64)
    (store.works / ("0" * 64) / "checkpoint").write_bytes(b"x" * 50)
    (store.artifacts / ("1" * 64)).mkdir()
    freed = collect(home)
    assert (freed.artifacts, freed.works, freed.size_bytes) == (0, 1, 50)
    assert [path.name for path in store.works.iterdir()] == [plan_graph(broken, seed=7, home=home)[0].key]
    assert list(store.artifacts.iterdir()) == list(store.drafts.iterdir()) == []
    assert [path.name for path in store.locks.iterdir()] == ["store"]


def test_nothing_is_freed_under_a_run(home: Path, calls: Path) -> None:
    run_chain(home, chain(calls))
    (home / "slmops.db").unlink()
    with Store(home).in_use(), pytest.raises(SlmopsError, match="a run is using"):
        collect(home)
    assert len(Store(home).whole()) == 3


def test_a_home_that_is_not_there_holds_nothing(home: Path) -> None:
    assert collect(home).size_bytes == usage(home).total_bytes == 0
    assert verify(home) == {}
    assert not home.exists()


def test_damage_is_found_and_dropped(home: Path, calls: Path) -> None:
    made = run_chain(home, chain(calls)).artifacts["b"]
    victim = made.path / "text.txt"
    victim.chmod(0o644)
    victim.write_text("xx")
    damaged = {made.key: f"{victim} does not have the recorded digest"}
    assert verify(home) == damaged
    assert verify(home, drop=True) == damaged
    assert verify(home) == {}
    run_chain(home, chain(calls))
    assert calls_in(calls)[3:] == ["b fresh"]
    assert victim.read_text() == "ab"
