"""A bundle for Ollama: one GGUF file and the Modelfile that says how it is asked.

Ollama renders prompts by a template of Go's. Its pieces are those of the tokenizer's own, see `Turns`.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from slmops.bundle import Bundle
from slmops.bundle.manifest import CARD
from slmops.engines.llamacpp import CONTEXT_TOKENS, FILE
from slmops.errors import BadInput
from slmops.export.folder import fresh, runs_on, writing_bundle
from slmops.export.gguf import write_gguf
from slmops.export.probes import PROBES
from slmops.export.turns import Turns, end_tokens

MODELFILE = "Modelfile"

_QUOTES = '"""'


def export_ollama(folder: Path, out: Path) -> list[str]:
    """Write the bundle in `folder` to `out` as a Modelfile and the GGUF file it stands on.

    Where llama.cpp is installed, its own tokenizer reads the file and has to cut texts as the bundle's does.

    Returns:
        What whoever takes the folder has to know.

    Raises:
        BadInput: the bundle cannot be trusted or marks instead of writing; llama.cpp cannot be told of something in it,
            or cuts texts otherwise; or `out` holds something.
    """
    bundle = writing_bundle(folder, "Ollama")
    if bundle.manifest.engine != "llama.cpp":
        runs_on(bundle, "onnxruntime-genai", "an export to Ollama")
    text = modelfile(bundle, Turns.of(bundle.tokenizer))
    fresh(out)
    try:
        write_gguf(bundle, out / FILE)
        checked = find_spec("llama_cpp") is not None
        if checked:
            check_tokens(out / FILE, bundle)
    except BadInput:
        shutil.rmtree(out)
        raise
    (out / MODELFILE).write_text(text, encoding="utf-8")
    if (folder / CARD).is_file():
        shutil.copyfile(folder / CARD, out / CARD)
    note = "its tokenizer was not held against llama.cpp's, which is not installed: pip install 'slmops[llamacpp]'"
    return [] if checked else [note]


def modelfile(bundle: Bundle, turns: Turns) -> str:
    """The text of a Modelfile.

    Raises:
        BadInput: the instruction holds what ends a text there.
    """
    told = bundle.manifest.generation
    lines = [f"FROM ./{FILE}", f"TEMPLATE {_QUOTES}{go_template(turns)}{_QUOTES}"]
    for message in bundle.task.render("…"):
        if message["role"] == "system":
            if _QUOTES in message["content"]:
                raise BadInput(f"the task's instruction holds {_QUOTES}, which no Modelfile can")
            lines.append(f"SYSTEM {_QUOTES}{message['content']}{_QUOTES}")
    parameters = {
        "num_ctx": CONTEXT_TOKENS,
        "num_predict": told.max_tokens,
        "temperature": told.temperature,
        "top_p": told.top_p,
        # What Ollama does besides unless it is told otherwise.
        "top_k": 0,
        "min_p": 0,
        "repeat_penalty": 1,
    }
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    lines += [f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}" for end in end_tokens(bundle.tokenizer)]
    return "\n".join(lines) + "\n"


def go_template(turns: Turns) -> str:
    """The chat template for Go's text/template, over `.Messages` with `.Role` and `.Content`."""
    written = {name: f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" for name, text in vars(turns).items()}
    return (
        '{{ $before := "" }}{{ range .Messages }}'
        f'{{{{ if eq .Role "system" }}}}{written["system"]}'
        f'{{{{ else if eq .Role "assistant" }}}}{written["user_assistant"]}'
        f'{{{{ else if eq $before "system" }}}}{written["system_user"]}'
        f'{{{{ else if eq $before "assistant" }}}}{written["assistant_user"]}'
        f"{{{{ else }}}}{written['user']}{{{{ end }}}}"
        f"{{{{ .Content }}}}{{{{ $before = .Role }}}}{{{{ end }}}}{written['answer']}"
    )


def check_tokens(path: Path, bundle: Bundle) -> None:
    """Hold llama.cpp's tokenizer, from the file, against the bundle's own, on rendered prompts.

    Raises:
        BadInput: it cuts one otherwise, or does not load the file.
    """
    from slmops.engines.llamacpp_tokens import cut

    asked = [[{"role": "user", "content": probe}] for probe in PROBES]
    theirs = cut(path, [bundle.tokenizer.render(messages) for messages in asked])
    for probe, messages, tokens in zip(PROBES, asked, theirs, strict=True):
        if tokens != bundle.tokenizer.prompt(messages):
            raise BadInput(
                f"llama.cpp cuts {probe!r} otherwise than the model learned it",
                hint="slmops export container serves the bundle with its own tokenizer",
            )
