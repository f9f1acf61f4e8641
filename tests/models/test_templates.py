"""Templates that replace a tokenizer's own say what their families' do, and travel with the model."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from slmops.errors import BadInput
from slmops.export.turns import Turns
from slmops.models.templates import TEMPLATES, put_template
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.recipe.chat_template import TextTemplate

OWN = TextTemplate(system="{system}\n\n", user='### {{Q}} "ü" 🙂\n{input}\n', assistant="### A\n{output}\n---\n")
EXPECTED = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "U<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nV<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
    "phi4-mini": "<|system|>S<|end|><|user|>U<|end|><|assistant|>A<|end|><|user|>V<|end|><|assistant|>",
    "gemma": "<start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\n"
    "V<end_of_turn>\n<start_of_turn>model\n",
    "plain": "S\nU\nA</s>\nV\n",
}
ROLES = ("system", "user", "assistant", "user")
TALK = [{"role": role, "content": text} for role, text in zip(ROLES, "SUAV", strict=True)]


def unbound(*control: str, first: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer over bytes that knows these control tokens, and has no template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", *control])
    if first:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")  # noqa: S106 - no passwords


def bound(wanted, folder, *, first: bool = False) -> Tokenizer:
    """The tokenizer with a template, as a model folder hands it on."""
    control = () if isinstance(wanted, TextTemplate) else TEMPLATES[wanted].control
    tokenizer = unbound(*control, first=first)
    put_template(tokenizer, wanted, "a model")
    tokenizer.save_pretrained(folder)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_family_is_written_as_its_own_models_do(name, tmp_path):
    tokenizer = bound(name, tmp_path)
    assert tokenizer.render(TALK) == EXPECTED[name]
    end = TEMPLATES[name].control[0] if TEMPLATES[name].control else "</s>"
    assert end_of_answer(tokenizer) == tokenizer.backend.token_to_id(end)
    assert Turns.of(tokenizer).render(TALK) == EXPECTED[name]
    assert bound(name, tmp_path / "first", first=True).render(TALK) == "<s>" + EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "plain"])
def test_a_tokenizer_of_another_family_is_refused(name):
    with pytest.raises(BadInput, match=f"chat_template: {name} writes .* the tokenizer of a model does not know"):
        put_template(unbound(TEMPLATES[name].control[0]), name, "a model")


def test_texts_of_ones_own_travel_with_the_model(tmp_path):
    tokenizer = bound(OWN, tmp_path / "fetched")
    tokenizer.save(tmp_path / "shipped")
    for one in (tokenizer, Tokenizer.load(tmp_path / "shipped")):
        assert one.render(TALK) == 'S\n\n### {Q} "ü" 🙂\nU\n### A\nA</s>\n---\n### {Q} "ü" 🙂\nV\n### A\n'
        assert end_of_answer(one) == one.backend.token_to_id("</s>")
        assert Turns.of(one).render(TALK) == one.render(TALK)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts=st.lists(TEXT, min_size=6, max_size=6), said=st.lists(TEXT, min_size=2, max_size=2))
def test_any_texts_come_out_as_they_are(texts, said, tmp_path_factory):
    def doubled(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    a, b, c, d, e, f = texts
    names = ("{system}", "{input}", "{output}")
    parts = [doubled(x) + name + doubled(y) for (x, y), name in zip([(a, b), (c, d), (e, f)], names, strict=True)]
    wanted = TextTemplate(system=parts[0], user=parts[1], assistant=parts[2])
    tokenizer = unbound()
    put_template(tokenizer, wanted, "a model")
    made = Tokenizer(
        tokenizer.backend_tokenizer, template=tokenizer.chat_template, special_tokens={"eos_token": "</s>"}
    )
    asked = [{"role": "system", "content": said[0]}, {"role": "user", "content": said[1]}]
    assert made.render(asked) == a + said[0] + b + c + said[1] + d + e


def test_without_a_place_for_it_a_system_message_is_refused(tmp_path):
    tokenizer = bound(OWN.model_copy(update={"system": None}), tmp_path)
    assert tokenizer.render(TALK[1:2]) == '### {Q} "ü" 🙂\nU\n### A\n'
    with pytest.raises(BadInput, match="no place for a system message"):
        tokenizer.render(TALK)
