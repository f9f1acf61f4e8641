"""Tests do not wait."""

from __future__ import annotations

import pytest

from slmops.endpoints import retry


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Hardly any waiting between tries."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.02)
