"""Runs in the environment of foundry.lock: Foundry Local, driven through its SDK, on a folder of onnxruntime-genai.

Every request is a session of its own in a thread of its own, which is how the SDK lets several run; how they share the
processor is Foundry's business. It takes text, and gives a piece of text for a token.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from foundry_local_sdk import (
    CatalogType,
    ChatSession,
    Configuration,
    FoundryLocalManager,
    MessageItem,
    ModelInfoBuilder,
    Request,
    RequestOptions,
    SearchOptions,
)
from measuring import Job, size_bytes
from serving import Ask, Came, main

NAME = "served"

AS_GIVEN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat template that adds nothing, so that its prompts are those of the other sides."""


class Foundry:
    """See `serving.Server`."""

    def __init__(self, job: Job) -> None:
        if job["ends"]:
            raise SystemExit("Foundry ends answers where its model's configuration says")
        folder = Path(job["model"])
        data = folder.with_name(f"{folder.name}-data-{time.time_ns()}")
        configured(folder, job["threads"])
        settings = Configuration("bench", app_data_dir=str(data), model_cache_dir=str(data / "models"))
        settings.disable_nonessential_telemetry = True
        FoundryLocalManager.initialize(settings)
        catalog = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL)
        about = ModelInfoBuilder().set_string_property("task", "chat-completion")
        self._model = catalog.register_model(model_path=str(folder), model_id=f"{NAME}-generic-cpu:1", metadata=about)
        self._model.load()
        self._came: SimpleQueue[list[Came] | Exception] = SimpleQueue()

    def ask(self, request: int, ask: Ask) -> None:
        Thread(target=self._answer, args=(request, ask), daemon=True).start()

    def step(self) -> list[Came]:
        came = self._came.get()
        if isinstance(came, Exception):
            raise SystemExit(f"Foundry: {came}")
        return came

    def _answer(self, request: int, ask: Ask) -> None:
        try:
            self._write(request, ask)
        except Exception as error:
            self._came.put(error)

    def _write(self, request: int, ask: Ask) -> None:
        options = RequestOptions(search=SearchOptions(max_output_tokens=ask["tokens"], do_sample=False))
        told = Request().add_item(MessageItem.user(ask["text"])).set_options(options)
        left = ask["tokens"]
        with ChatSession(self._model) as session, session.set_streaming(True).process_streaming_request(told) as stream:
            for _ in stream:
                # Of a character in several tokens, and of the end, there may be fewer or more pieces than tokens.
                if left > 1:
                    left -= 1
                    self._came.put([Came(request, -1, False)])
            with stream.final_response as final:
                written = final.get_usage().completion_tokens
        if written != ask["tokens"]:
            raise RuntimeError(f"an answer has {written} tokens in place of {ask['tokens']}")
        self._came.put([Came(request, -1, i == left - 1) for i in range(left)])


def configured(folder: Path, threads: int) -> None:
    """Let the folder say what the other sides are told: threads, greedy, and answers that end at their length."""
    path = folder / "genai_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    # No answer comes to the last of all tokens.
    config["model"]["eos_token_id"] = config["model"]["vocab_size"] - 1
    config["search"] |= {"do_sample": False}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(AS_GIVEN, encoding="utf-8")
    tokenizer = folder / "tokenizer_config.json"
    told = json.loads(tokenizer.read_text(encoding="utf-8")) | {"chat_template": AS_GIVEN}
    tokenizer.write_text(json.dumps(told), encoding="utf-8")
    (folder / "inference_model.json").write_text(json.dumps({"Name": f"{NAME}-generic-cpu"}), encoding="utf-8")


def make(job: Job, work: Path) -> Mapping[str, Any]:  # noqa: ARG001
    """A copy of the folder that our own side made: Foundry converts nothing."""
    begun, out = time.perf_counter(), Path(job["out"])
    shutil.copytree(job["settings"]["made"], out)
    size = size_bytes(out, ".onnx.data")
    return {"model": str(out), "size_bytes": size, "make_s": time.perf_counter() - begun}


if __name__ == "__main__":
    main(Foundry, make)
