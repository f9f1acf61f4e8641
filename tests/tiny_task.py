"""The task whose answers the tiny model knows."""

from __future__ import annotations

from slmops.tasks import Extraction

_TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"enum": ["order_late", "refund", "invoice", "other"]},
        "order": _TEXT,
        "amount": _TEXT,
        "name": _TEXT,
    },
    "required": ["intent"],
    "additionalProperties": False,
}
TASK = Extraction(SCHEMA, "intent", None, 60)
