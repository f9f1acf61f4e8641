"""What a student shares with its teacher: told by what it kept, or by its vocabulary."""

from __future__ import annotations

import json
from dataclasses import replace

import tokenizers

from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trim_vocabulary
from slmops.train.cut import Kept
from slmops.train.kinship import Kinship, ids_at_teacher, kinship
from tests.tokenizer_kinds import tokenizer


def part(tokenizer: Tokenizer, *texts: str) -> tuple[Tokenizer, list[int]]:
    """The tokenizer cut down to what these texts need, and the old ids of its tokens."""
    used = [token for text in texts for token in tokenizer.encode(text)]
    small, kept = trim_vocabulary(json.loads(tokenizer.backend.to_str()), used)
    backend = tokenizers.Tokenizer.from_str(json.dumps(small))
    return Tokenizer(backend, template=tokenizer.template, special_tokens=tokenizer.special_tokens), kept


def test_a_students_tokens_are_found_at_its_teacher_or_are_its_own(tiny_tokenizer):
    small, kept = part(tiny_tokenizer, "refund")
    assert ids_at_teacher(small, tiny_tokenizer) == kept
    assert ids_at_teacher(tiny_tokenizer, tiny_tokenizer) == list(range(tiny_tokenizer.size))
    assert ids_at_teacher(tiny_tokenizer, small) is None
    assert ids_at_teacher(tokenizer("gemma"), tiny_tokenizer) is None
    assert ids_at_teacher(tokenizer("bytes"), tiny_tokenizer) is None


def test_a_cut_of_the_teacher_knows_its_tokens_and_another_model_is_told_by_its_vocabulary(tiny_tokenizer):
    small, kept = part(tiny_tokenizer, "refund")
    of_teacher = Kept(tokens=kept, layers=[0, 3], heads=None, channels=None)
    assert kinship(of_teacher, small, None) == Kinship(True, kept, [0, 3])
    other = replace(of_teacher, of_teacher=False)
    assert kinship(other, small, tiny_tokenizer) == Kinship(True, kept, None)
    assert kinship(other, tiny_tokenizer, tiny_tokenizer) == Kinship(True, None, None)
    assert kinship(other, tokenizer("gemma"), tiny_tokenizer) == Kinship(False, None, None)
