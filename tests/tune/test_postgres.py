"""Machines that share a search through a real PostgreSQL; each has a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slmops.errors import SlmopsError
from tests.tune.test_study import begun, opened

pgserver = pytest.importorskip("pgserver", reason="a PostgreSQL is installed apart: make postgres")
pytest.importorskip("psycopg")


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where it is stands in the environment, as who logs in does."""
    server = pgserver.get_server(tmp_path / "postgres")
    server.psql("create database tuning;")
    monkeypatch.setenv("PGHOST", str(tmp_path / "postgres"))
    monkeypatch.setenv("PGUSER", "postgres")
    yield "postgresql:///tuning"
    server.cleanup()


def test_machines_take_different_trials_and_see_each_others_ends(storage: str, tmp_path: Path) -> None:
    here, there = (opened(tmp_path / name, storage=storage) for name in ("here", "there"))
    with here.working(), there.working():
        first, second = begun(here), begun(there)
        assert [(trial.number, trial.written) for trial in (first, second)] == [(0, True), (1, False)]
        here.done(first, 0.5, 1.0)
        there.done(second, 0.7, 1.0)
        assert here.study.best_value == 0.7
        assert here.next(2) is None
        assert there.next(2) is None


def test_a_database_that_cannot_be_reached_is_told(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", str(tmp_path / "nowhere"))
    with pytest.raises(SlmopsError, match=r"postgresql:///tuning: .*connection"):
        opened(tmp_path / "here", storage=storage)
