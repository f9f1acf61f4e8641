import json
from functools import cache

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.models.vocabulary import byte_alphabet, trim_vocabulary

TEXTS = [
    "where is my order, it should have arrived on Monday",
    "cancel the blue lamp, order BL-48213, I paid $39.90",
    '{"intent":"order_status","product":"blue lamp"}',
    "my name is Anna Berg and I live in Lisbon",
]


@cache
def full() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(byte_alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return backend


def trimmed(texts: list[str], extra: int = 0) -> tuple[tokenizers.Tokenizer, list[int]]:
    used = {token for text in texts for token in full().encode(text).ids}
    small, kept = trim_vocabulary(json.loads(full().to_str()), used, extra=extra)
    return tokenizers.Tokenizer.from_str(json.dumps(small)), kept


def test_the_byte_alphabet_is_that_of_the_library():
    assert sorted(byte_alphabet()) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_texts_of_the_data_are_split_as_before():
    small, kept = trimmed(TEXTS[:2])
    assert small.get_vocab_size() < full().get_vocab_size()
    for text in TEXTS[:2]:
        assert [kept[token] for token in small.encode(text).ids] == full().encode(text).ids


@given(st.text(max_size=60))
def test_any_text_comes_back_whole(text):
    small, kept = trimmed(TEXTS[:1])
    tokens = small.encode(text, add_special_tokens=False).ids
    assert small.decode(tokens) == full().decode(full().encode(text, add_special_tokens=False).ids)
    assert full().decode([kept[token] for token in tokens]) == small.decode(tokens)


def test_special_tokens_stay_and_point_to_their_rows():
    small, kept = trimmed(TEXTS[:1])
    for name in ("<|im_start|>", "<|im_end|>"):
        assert kept[small.token_to_id(name)] == full().token_to_id(name)


@given(st.integers(0, 40))
def test_extra_tokens_only_add(extra):
    _, few = trimmed(TEXTS[:1])
    _, more = trimmed(TEXTS[:1], extra)
    assert set(few) <= set(more)
    # A merge brings the parts it is made of along, so the last one may pass the number by those.
    assert min(extra, 1) <= len(more) - len(few) <= extra + 8


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@cache
def with_byte_fallback(kind: str) -> tokenizers.Tokenizer:
    """BPE over characters, in the way of Gemma (spaces stay where they are) or of Phi-3 (one is put in front)."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True))  # noqa: S106 - no password
    space, mark = tokenizers.normalizers.Replace(" ", "▁"), tokenizers.decoders
    steps = [mark.Replace("▁", " "), mark.ByteFallback(), mark.Fuse()]
    if kind == "gemma":
        backend.normalizer = space
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        backend.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"), space])
        steps.append(mark.Strip(" ", 1, 0))
    backend.decoder = mark.Sequence(steps)
    special = ["<unk>", "<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS * 3, trainer)
    content = json.loads(backend.to_str())
    first = len(content["model"]["vocab"])
    content["model"]["vocab"] |= {name: first + i for i, name in enumerate(BYTES)}
    content["model"]["byte_fallback"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def trimmed_with_byte_fallback(kind: str, texts: list[str]) -> tuple[tokenizers.Tokenizer, list[int]]:
    whole = with_byte_fallback(kind)
    used = {token for text in texts for token in whole.encode(text).ids}
    small, kept = trim_vocabulary(json.loads(whole.to_str()), used)
    return tokenizers.Tokenizer.from_str(json.dumps(small)), kept


kinds = pytest.mark.parametrize("kind", ["gemma", "phi3"])


@kinds
def test_with_byte_fallback_texts_of_the_data_are_split_as_before(kind):
    small, kept = trimmed_with_byte_fallback(kind, TEXTS[:2])
    whole = with_byte_fallback(kind)
    assert small.get_vocab_size() < whole.get_vocab_size()
    for text in TEXTS[:2]:
        tokens = small.encode(text).ids
        assert [kept[token] for token in tokens] == whole.encode(text).ids
        assert small.decode(tokens) == text


@kinds
@given(text=st.text(max_size=60) | st.text(alphabet="where is my▁ <0x4>é🙂\n", max_size=60))
def test_with_byte_fallback_any_text_comes_back_whole(kind, text):
    whole = with_byte_fallback(kind)
    small, kept = trimmed_with_byte_fallback(kind, TEXTS[:1])
    tokens = small.encode(text, add_special_tokens=False).ids
    assert small.decode(tokens) == whole.decode(whole.encode(text, add_special_tokens=False).ids)
    assert whole.decode([kept[token] for token in tokens]) == small.decode(tokens)
    assert small.token_to_id("<unk>") not in tokens


@kinds
def test_with_byte_fallback_a_character_that_is_no_token_is_written_as_bytes(kind):
    small, kept = trimmed_with_byte_fallback(kind, TEXTS[:1])
    (*_, first, second) = small.encode("é").ids
    assert [small.id_to_token(token) for token in (first, second)] == ["<0xC3>", "<0xA9>"]
    assert with_byte_fallback(kind).id_to_token(kept[first]) == "<0xC3>"


def test_byte_fallback_that_cannot_write_every_byte_is_refused():
    content = json.loads(with_byte_fallback("gemma").to_str())
    del content["model"]["vocab"]["<0x00>"]
    with pytest.raises(BadInput, match="cannot be trimmed"):
        trim_vocabulary(content, [0])


def test_marks_at_the_ends_of_words_are_refused():
    content = json.loads(full().to_str())
    content["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(BadInput, match="cannot be trimmed"):
        trim_vocabulary(content, [0])


def test_other_tokenizers_are_refused():
    word_level = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))  # noqa: S106 - a token, no password
    with pytest.raises(BadInput, match="not a byte-level BPE") as error:
        trim_vocabulary(json.loads(word_level.to_str()), [0])
    assert "vocabulary: keep" in (error.value.hint or "")
