"""A report as the files that leave the house."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.report.page import page
from slmops.report.story import Story


def write_report(out: Path, story: Story, about: Mapping[str, Any] | None = None) -> int:
    """Write `report.html` and `report.json` to `out`; returns the size of the page in bytes.

    Args:
        about: further entries of `report.json`.
    """
    return write_files(out, page(story), story.record() | dict(about or {}))


def write_files(out: Path, html: str, record: Mapping[str, Any]) -> int:
    """Write a page and its record to `out`, each whole or not at all; returns the size of the page in bytes."""
    text_of_record = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    for name, text in (("report.html", html), ("report.json", text_of_record)):
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)
    return len(html.encode())
