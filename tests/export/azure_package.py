"""What `azure-ai-ml` allows in a distillation job and its connection, as plain data.

`python -m tests.export.azure_package`, where the package is installed, writes it down for the tests where it is not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CAPTURED = Path(__file__).with_name("azure_package.json")


def capture() -> dict[str, Any]:
    """Of each schema its fields that may be given: whether they must be, the values allowed, the schemas below."""
    from azure.ai.ml._schema._distillation import DistillationJobSchema
    from azure.ai.ml._schema.workspace.connections import ServerlessConnectionSchema

    found: dict[str, Any] = {}
    for schema in (DistillationJobSchema, ServerlessConnectionSchema):
        _walk(schema(context={"base_path": "."}), found)
    return found


def _walk(schema: Any, found: dict[str, Any]) -> str:
    name = type(schema).__name__
    if name not in found:
        found[name] = {}
        for key, field in sorted(schema.fields.items()):
            if not field.dump_only:
                found[name][key] = ({"required": True} if field.required else {}) | _values(field, found)
    return name


def _values(field: Any, found: dict[str, Any]) -> dict[str, Any]:
    if hasattr(field, "nested"):
        return {"schemas": [_walk(field.schema, found)]}
    if hasattr(field, "allowed_values"):
        return {"values": sorted(map(field.casing_transform, field.allowed_values))}
    if hasattr(field, "union_fields"):
        parts = [_values(one, found) for one in field.union_fields]
        below = [name for part in parts for name in part.get("schemas", ())]
        return {"schemas": below} if below else {}
    return {}


def faults(given: dict[str, Any], name: str, known: dict[str, Any], place: str = "") -> list[str]:
    """Why data is not of the schema of this name; empty where it is. Of several schemas below, one has to fit."""
    fields = known[name]
    told = [f"{place}{key} is unknown" for key in given if key not in fields]
    told += [f"{place}{key} is missing" for key, one in fields.items() if one.get("required") and key not in given]
    for key, value in given.items():
        one = fields.get(key, {})
        if "values" in one and value not in one["values"]:
            told.append(f"{place}{key}: {value} is none of {one['values']}")
        if isinstance(value, dict) and one.get("schemas"):
            told += min((faults(value, below, known, f"{place}{key}.") for below in one["schemas"]), key=len)
    return told


if __name__ == "__main__":
    from importlib import metadata

    made = {"package": f"azure-ai-ml {metadata.version('azure-ai-ml')}", "schemas": capture()}
    CAPTURED.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
