"""Runs in the environment of tests/foundry.lock: registers a folder with Foundry Local and asks it, as its README does.

Reads one JSON object from stdin: `folder`, `data` (where Foundry Local may write), `id`, `tokens` (of an answer at
most), and `asked`, lists of messages.
Writes the answers as the last line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from foundry_local_sdk import ChatSession, Configuration, FoundryLocalManager, MessageItem, ModelInfoBuilder, Request
from foundry_local_sdk.catalog import CatalogType
from foundry_local_sdk.session_types import RequestOptions, SearchOptions

ITEMS = {"system": MessageItem.system, "user": MessageItem.user, "assistant": MessageItem.assistant}


def answer(model: Any, messages: list[dict[str, str]], tokens: int) -> str:
    request = Request().set_options(RequestOptions(search=SearchOptions(max_output_tokens=tokens)))
    for message in messages:
        request.add_item(ITEMS[message["role"]](message["content"]))
    with ChatSession(model) as session:
        return session.process_request(request).get_item(0).parts[0].text


def main() -> None:
    job = json.load(sys.stdin)
    told = Configuration(
        app_name="slmops-tests",
        app_data_dir=job["data"],
        model_cache_dir=job["data"] + "/models",
        logs_dir=job["data"] + "/logs",
        disable_nonessential_telemetry=True,
    )
    FoundryLocalManager.initialize(told)
    catalog = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL)
    about = ModelInfoBuilder().set_string_property("task", "chat-completion")
    model = catalog.register_model(job["folder"], job["id"], about)
    model.load()
    print(json.dumps([answer(model, messages, job["tokens"]) for messages in job["asked"]]))


if __name__ == "__main__":
    main()
