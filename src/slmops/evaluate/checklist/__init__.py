"""The checklist that a bundle passes before it is served: one line a question, each with its figure and its bound."""

from __future__ import annotations

from slmops.evaluate.checklist.line import Line
from slmops.evaluate.checklist.run import validate

__all__ = ["Line", "validate"]
