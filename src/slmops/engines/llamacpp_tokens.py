"""llama.cpp's own tokenizer, from the vocabulary in a GGUF file; engines here are given tokens and never ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slmops.engines.llamacpp import runtime
from slmops.errors import BadInput


def cut(path: Path, texts: list[str]) -> list[list[int]]:
    """The tokens of each text, control tokens in it included, as programs on llama.cpp cut it.

    Raises:
        BadInput: llama.cpp is not installed, or does not load the file.
    """
    library = runtime()
    told = library.llama_model_default_params()
    told.vocab_only = True
    model = library.llama_model_load_from_file(str(path).encode(), told)
    if not model:
        raise BadInput(f"llama.cpp does not load {path}")
    try:
        vocabulary = library.llama_model_get_vocab(model)
        return [_cut(library, vocabulary, text.encode()) for text in texts]
    finally:
        library.llama_model_free(model)


def _cut(library: Any, vocabulary: Any, text: bytes) -> list[int]:
    room = len(text) + 2
    ids = (library.llama_token * room)()
    count = library.llama_tokenize(vocabulary, text, len(text), ids, room, False, True)
    return list(ids[:count])
