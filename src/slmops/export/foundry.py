"""A bundle as a folder that Foundry Local registers: onnxruntime-genai runs it there as it does here.

`genai_config.json` says how it answers. `inference_model.json` has its name and, for versions that do not render the
tokenizer's own chat template, the same prompts told in pieces.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from slmops.bundle import Bundle
from slmops.bundle.manifest import CARD, MODEL
from slmops.engines.onnxruntime import read_config
from slmops.errors import BadInput
from slmops.export.folder import CONFIG, fresh, runs_on, write_json, writing_bundle
from slmops.export.probes import PROBES
from slmops.export.turns import Turns
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.files import files_below, link_or_copy

_SETTINGS = ("genai_config.json", "tokenizer_config.json", CONFIG)
"""Files that are written anew or mean nothing there."""

_CLASSES = {True: "GPT2Tokenizer", False: "LlamaTokenizer"}
"""What the runtime's own tokenizer knows a BPE over bytes by, and one over characters."""


def export_foundry(folder: Path, out: Path) -> Path:
    """Write the bundle in `folder` to `out` as Foundry Local takes models, and how to register it.

    Raises:
        BadInput: the bundle cannot be trusted, marks instead of writing, or is not for onnxruntime-genai; its chat
            template does more than pieces can say; the runtime's tokenizer cuts texts otherwise than the model
            learned them; or `out` holds something.
    """
    bundle = writing_bundle(folder, "Foundry Local")
    runs_on(bundle, "onnxruntime-genai", "Foundry Local")
    turns = Turns.of(bundle.tokenizer)
    fresh(out)
    for name in files_below(folder / MODEL):
        if name not in _SETTINGS:
            link_or_copy(folder / MODEL / name, out / name)
    write_json(out / "genai_config.json", genai_config(bundle))
    write_json(out / "tokenizer_config.json", _tokenizer_config(bundle.tokenizer))
    write_json(out / "inference_model.json", inference_model(bundle, turns))
    (out / "README.md").write_text(_readme(bundle), encoding="utf-8")
    if (folder / CARD).is_file():
        shutil.copyfile(folder / CARD, out / CARD)
    try:
        _check_tokens(out, bundle)
    except BadInput:
        shutil.rmtree(out)
        raise
    return out


def model_id(bundle: Bundle) -> str:
    """What the bundle is registered as; the number behind the colon is Foundry's own."""
    return f"{bundle.manifest.name}-generic-cpu:1"


def genai_config(bundle: Bundle) -> dict[str, Any]:
    """The runtime's configuration, with the bundle's way of answering as what it does unless told otherwise."""
    config = read_config(bundle.folder / MODEL)
    told = bundle.manifest.generation
    config["model"]["eos_token_id"] = sorted(bundle.tokenizer.end_ids)
    config["search"] |= {
        "do_sample": told.temperature > 0,
        "temperature": told.temperature or 1.0,
        "top_p": told.top_p,
        # Unless it is drawn from the whole, the likeliest alone is taken.
        "top_k": 0 if told.temperature else 1,
    }
    return config


def inference_model(bundle: Bundle, turns: Turns) -> dict[str, Any]:
    """Name, and the chat template in pieces, where `{Content}` is a message."""
    return {"Name": bundle.manifest.name, "PromptTemplate": prompt_template(turns)}


def prompt_template(turns: Turns) -> dict[str, str]:
    """What stands around each message; `prompt` is a conversation of one user's message whole.

    Where a system message has no turn of its own but begins the user's, as with Gemma, no piece can say it.
    """
    content = "{Content}"
    after_system, user = _parted(turns.system_user, turns.end)
    after_user, assistant = _parted(turns.user_assistant, turns.end)
    after_assistant, asked = _parted(turns.assistant_user, turns.end)
    pieces = {
        "user": asked + content + after_user,
        "assistant": assistant + content + after_assistant,
        "prompt": turns.user + content + turns.answer,
    }
    return ({"system": turns.system + content + after_system} if user == asked else {}) | pieces


def _parted(text: str, end: str) -> tuple[str, str]:
    """What of a text between two messages closes the one, and what begins the other."""
    return (end, text.removeprefix(end)) if text.startswith(end) else (text, "")


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """In the form that the runtime's own tokenizer reads."""
    over_bytes = "ByteLevel" in json.dumps(json.loads(tokenizer.backend.to_str())["pre_tokenizer"])
    return {
        "tokenizer_class": _CLASSES[over_bytes],
        **tokenizer.special_tokens,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.template,
    }


def _check_tokens(out: Path, bundle: Bundle) -> None:
    """Hold the runtime's tokenizer and its rendering of the chat template against the bundle's own.

    Raises:
        BadInput: they differ, so the model would be asked otherwise there.
    """
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    try:
        theirs = og.Tokenizer(og.Model(str(out)))
    except RuntimeError as error:
        raise BadInput(f"onnxruntime-genai cannot read the tokenizer: {str(error).splitlines()[0]}") from error
    for probe in PROBES:
        messages = [{"role": "system", "content": "Answer."}, {"role": "user", "content": probe}]
        for asked in (messages, messages[1:]):
            rendered = theirs.apply_chat_template(json.dumps(asked), add_generation_prompt=True)
            if rendered != bundle.tokenizer.render(asked):
                raise BadInput(f"the chat template is rendered otherwise there: {rendered!r}")
            if theirs.encode(rendered).tolist() != bundle.tokenizer.prompt(asked):
                raise BadInput(
                    f"the tokenizer of onnxruntime-genai cuts {probe!r} otherwise than the model learned it",
                    hint="slmops export container serves the bundle with its own",
                )


def _readme(bundle: Bundle) -> str:
    told = bundle.manifest
    asked = [message for message in bundle.task.render("…") if message["role"] == "system"]
    system = "".join(f"\n    MessageItem.system({message['content']!r})," for message in asked)
    return f"""# {told.name} {told.version} for Foundry Local

```python
from foundry_local_sdk import ChatSession, Configuration, FoundryLocalManager, MessageItem, ModelInfoBuilder, Request
from foundry_local_sdk.catalog import CatalogType
from foundry_local_sdk.session_types import RequestOptions, SearchOptions

FoundryLocalManager.initialize(Configuration(app_name="{told.name}"))
catalog = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL)
about = ModelInfoBuilder().set_string_property("task", "chat-completion")
# What is registered stays so.
model = catalog.get_model_variant("{model_id(bundle)}") or catalog.register_model("FOLDER", "{model_id(bundle)}", about)
model.load()
request = Request().set_options(RequestOptions(search=SearchOptions(max_output_tokens={told.generation.max_tokens})))
for message in ({system}
    MessageItem.user("What is to be answered"),
):
    request.add_item(message)
with ChatSession(model) as session:
    print(session.process_request(request).get_item(0).parts[0].text)
```

Without `max_output_tokens` Foundry Local asks for 2,048, which may be more than there is room for. A system message
above is the instruction that the model was trained with.
"""
