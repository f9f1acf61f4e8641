"""What every engine must do alike. A new engine joins `ENGINE_FOLDERS` and passes as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from slmops.compress.convert import convert
from slmops.engines import ENGINES, Engine, Sampling, Token, load_engine
from slmops.errors import BadInput
from slmops.recipe.compress import CompressSettings
from tests.runtimes import needs
from tests.shares import by_score

CONTEXT = 128
GREEDY = Sampling(max_tokens=40)


@pytest.fixture(scope="session")
def folders(tiny, tiny_onnx, tmp_path_factory) -> dict[str, Path]:
    gguf = tmp_path_factory.mktemp("gguf")
    settings = CompressSettings(precision="fp32", runtime="llama.cpp")
    convert(tiny.folder, gguf / "model", settings, scratch=gguf / "scratch")
    ours = {"transformers": tiny.folder, "onnxruntime-genai": tiny_onnx, "openvino": tiny_onnx}
    return ours | {"llama.cpp": gguf / "model"}


@pytest.fixture(scope="session", params=sorted(ENGINES))
def name(request) -> str:
    needs(request.param)
    return request.param


@pytest.fixture(scope="session")
def engine(name, folders) -> Engine:
    return load_engine(name, folders[name], threads=1)


@pytest.fixture(scope="session")
def prompts(tiny) -> list[list[int]]:
    """Prompts of different lengths."""
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    assert len({len(prompt) for prompt in prompts}) > 1
    return prompts


def answers(tokens: Sequence[Token], requests: int) -> list[list[int]]:
    return [[token.id for token in tokens if token.request == request] for request in range(requests)]


def test_answers_what_it_was_taught_and_stops_at_the_end_token(engine, prompts, tiny):
    tokens = list(engine.generate(prompts, GREEDY))
    assert [tiny.tokenizer.decode(answer) for answer in answers(tokens, len(prompts))] == list(tiny.pairs.values())
    last = [[token for token in tokens if token.request == request][-1] for request in range(len(prompts))]
    assert all(token.finish == "stop" and token.id in tiny.tokenizer.end_ids for token in last)
    assert sum(token.finish is not None for token in tokens) == len(prompts)


def test_tokens_of_requests_come_interleaved(engine, prompts):
    order = [token.request for token in engine.generate(prompts, Sampling(max_tokens=3))]
    assert order == [0, 1, 2, 3] * 3


def test_a_batch_equals_single_requests(engine, prompts):
    together = list(engine.generate(prompts, GREEDY, top_logits=5))
    for request, prompt in enumerate(prompts):
        alone = list(engine.generate([prompt], GREEDY, top_logits=5))
        mine = [token for token in together if token.request == request]
        assert [token.id for token in mine] == [token.id for token in alone]
        for in_batch, single in zip(mine, alone, strict=True):
            np.testing.assert_array_equal(in_batch.top[0], single.top[0])
            np.testing.assert_allclose(in_batch.top[1], single.top[1], atol=1e-4)


def test_more_texts_than_one_batch_holds(engine, prompts, tiny):
    answer = tiny.tokenizer.encode("refund")
    together = engine.score(prompts * 20, [answer] * 80)
    for row, alone in enumerate(engine.score(prompts, [answer] * 4)):
        np.testing.assert_allclose(together[row + 40], alone, atol=1e-4)


def test_more_requests_than_one_batch_holds(engine, prompts, tiny, monkeypatch):
    tokens = list(engine.generate(prompts * 20, GREEDY))
    assert [tiny.tokenizer.decode(answer) for answer in answers(tokens, 80)] == list(tiny.pairs.values()) * 20
    # With no memory to spare, requests go one by one and the answers stay the same.
    monkeypatch.setattr("slmops.engines.decoding.MAX_LOGITS", 1)
    one_by_one = list(engine.generate(prompts, GREEDY))
    assert answers(one_by_one, 4) == answers(tokens, 80)[:4]
    switches = sum(one.request != other.request for one, other in pairwise(one_by_one))
    assert switches == 3


def test_prompts_that_end_with_the_pad_token_are_read_to_the_end(engine, prompts, folders, tiny):
    """The pad token of this model is its end token; it also stands inside and at the end of prompts."""
    (end,) = tiny.tokenizer.end_ids
    batch = [[*prompts[0], end], [*prompts[1], end, end], prompts[3], [end]]
    reference = load_engine("transformers", folders["transformers"], threads=1)
    for mine, expected in zip(first_logits(engine, batch), first_logits(reference, batch), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-3)


def first_logits(engine: Engine, prompts: list[list[int]]) -> list[np.ndarray]:
    tokens = list(engine.generate(prompts, Sampling(max_tokens=1), top_logits=8))
    return [np.array([dict(zip(*token.top, strict=True))[id] for id in sorted(token.top[0])]) for token in tokens]


def test_greedy_is_deterministic_and_the_seed_does_not_matter(engine, prompts):
    runs = [[token.id for token in engine.generate(prompts, Sampling(40, seed=seed))] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] == runs[2]


def test_sampling_follows_its_seed(engine, prompts):
    def write(seed: int, batch: list[list[int]]) -> list[list[int]]:
        sampling = Sampling(max_tokens=20, temperature=2.0, seed=seed)
        return answers(list(engine.generate(batch, sampling)), len(batch))

    assert write(5, prompts) == write(5, prompts)
    assert write(5, prompts) != write(6, prompts)
    assert write(5, prompts)[1:] == write(5, prompts[1:]), "the same request writes the same text in any batch"
    first, second = write(5, [prompts[0], prompts[0]])
    assert first != second, "equal requests are drawn independently"


def test_sampling_draws_by_probability(engine, prompts):
    """300 draws of one token against the distribution that `score` gives."""
    sampling = Sampling(max_tokens=1, temperature=1.0, seed=1)
    prompt = prompts[0][:4]
    drawn = [token.id for token in engine.generate([prompt] * 300, sampling)]
    most = max(set(drawn), key=drawn.count)
    share = drawn.count(most) / 300
    probability = float(np.exp(engine.score([prompt], [[most]])[0][0]))
    assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / 300) + 1e-9


def test_top_p_keeps_to_the_nucleus(engine, prompts):
    tokens = engine.generate(prompts, Sampling(max_tokens=20, temperature=1.0, top_p=1e-6, seed=3))
    greedy = engine.generate(prompts, Sampling(max_tokens=20))
    assert [token.id for token in tokens] == [token.id for token in greedy]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_tokens(engine, prompts, limit):
    tokens = list(engine.generate(prompts, Sampling(max_tokens=limit)))
    assert all(len(answer) == limit for answer in answers(tokens, len(prompts)))
    assert [token.finish for token in tokens[-len(prompts) :]] == ["length"] * len(prompts)


def test_several_end_tokens(name, folders, prompts, tiny, tmp_path):
    """A token that the model writes early is made a second end token."""
    engine = load_engine(name, folders[name], threads=1)
    answer = answers(list(engine.generate(prompts[:1], GREEDY)), 1)[0]
    early = answer[4]
    shutil.copytree(folders[name], tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"end_ids": [*tiny.tokenizer.end_ids, early]}
    path.write_text(json.dumps(config))
    engine = load_engine(name, tmp_path / "model", threads=1)
    tokens = list(engine.generate(prompts, GREEDY))
    short = [token for token in tokens if token.request == 0]
    assert [token.id for token in short] == answer[: answer.index(early) + 1]
    assert short[-1].finish == "stop"
    assert {token.request for token in tokens if token.finish == "stop"} == {0, 1, 2, 3}


def test_text_arrives_whole_although_characters_are_several_tokens(engine, prompts, tiny):
    stream, request = tiny.tokenizer.stream(), 2
    pieces = [stream.feed(token.id) for token in engine.generate([prompts[request]], GREEDY)]
    assert "" in pieces[:-1], "some tokens are only part of a character"
    assert "".join(pieces) + stream.flush() == list(tiny.pairs.values())[request]
    assert not any("\ufffd" in piece for piece in pieces)


def test_top_logits_are_sorted_and_agree_with_score(engine, prompts):
    token = next(iter(engine.generate(prompts[:1], GREEDY, top_logits=400)))
    ids, logits = token.top
    assert ids.dtype == np.int32
    assert logits.dtype == np.float32
    assert (np.diff(logits) <= 0).all()
    assert ids[0] == token.id
    # Of the whole vocabulary, the logits give the probabilities themselves.
    expected = logits - np.log(np.exp(logits - logits[0]).sum()) - logits[0]
    scores = engine.score([prompts[0]] * 20, [[int(id)] for id in ids[:20]])
    np.testing.assert_allclose(np.concatenate(scores), expected[:20], atol=1e-3)


def test_score_agrees_with_transformers(engine, folders, prompts, tiny):
    import torch
    from transformers import AutoModelForCausalLM

    continuations = [[*tiny.tokenizer.encode(answer), 2] for answer in tiny.pairs.values()]
    model = AutoModelForCausalLM.from_pretrained(folders["transformers"])
    scores = engine.score(prompts, continuations)
    for prompt, continuation, score in zip(prompts, continuations, scores, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + continuation])).logits[0].log_softmax(-1)
        expected = [logits[len(prompt) - 1 + i, id].item() for i, id in enumerate(continuation)]
        assert score.dtype == np.float32
        np.testing.assert_allclose(score, expected, atol=1e-3)


def test_a_text_that_is_given_is_read_as_one_that_is_written(engine, prompts):
    tokens = list(engine.generate(prompts, GREEDY, top_logits=5))
    written = answers(tokens, len(prompts))
    for request, (ids, log_probs) in enumerate(engine.score_top(prompts, written, top_logits=5)):
        tops = [token.top for token in tokens if token.request == request]
        assert (ids.dtype, log_probs.dtype) == (np.int32, np.float32)
        assert ids.shape == log_probs.shape == (len(written[request]), 5)
        assert ids[:, 0].tolist() == written[request]
        np.testing.assert_allclose(log_probs, [top[1] for top in tops], atol=1e-3)


def test_the_most_likely_tokens_of_any_text_agree_with_its_score(engine, prompts, tiny):
    continuations = [[5, 6, 7], [], [8], [9, 10]]
    scores = engine.score(prompts, continuations)
    tops = engine.score_top(prompts, continuations, top_logits=1000)  # more than there are
    for tokens, score, (ids, log_probs) in zip(continuations, scores, tops, strict=True):
        assert ids.shape == (len(tokens), tiny.tokenizer.size)
        assert (np.diff(log_probs, axis=1) <= 0).all()
        own = [log_probs[place, ids[place] == token].item() for place, token in enumerate(tokens)]
        np.testing.assert_allclose(own, score, atol=1e-3)


def test_score_in_parts_equals_score_at_once(engine, prompts, monkeypatch):
    continuations = [[5, 6, 7], [], [8], [9, 10]]
    at_once = engine.score(prompts, continuations)
    monkeypatch.setattr("slmops.engines.decoding.MAX_SCORED", 1)
    in_parts = engine.score(prompts, continuations)
    assert [len(scores) for scores in at_once] == [3, 0, 1, 2]
    for one, other in zip(at_once, in_parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("alike", [True, False])
def test_choices_have_their_shares_where_nothing_else_may_be_written(engine, prompts, tiny, alike):
    """Prompts of different lengths that share their beginning, or nothing; choices that begin alike, or do not."""
    choices = [[*tiny.tokenizer.encode(text), 0] for text in ("order", "order_late", "refund", "r", "€ 20", "x")]
    asked = prompts if alike else [prompts[0], prompts[1][3:], prompts[2][5:]]
    found = engine.score_choices(asked, choices)
    assert (found.dtype, found.shape) == (np.float32, (len(asked), len(choices)))
    expected = by_score(engine, asked, choices)
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=2e-3)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_choices_must_be_given_and_fit(engine, prompts):
    assert engine.score_choices([], [[5]]).shape == (0, 1)
    with pytest.raises(BadInput, match="at least one token"):
        engine.score_choices(prompts, [[5], []])
    with pytest.raises(BadInput, match="what another begins with"):
        engine.score_choices(prompts, [[5], [5, 6]])
    with pytest.raises(BadInput, match="context of 128"):
        engine.score_choices(prompts, [[5] * CONTEXT])
    with pytest.raises(BadInput, match="token 1000000"):
        engine.score_choices(prompts, [[5], [10**6]])


def test_the_context_ends_an_answer(engine, prompts, folders):
    """A prompt with room for three tokens gets three, whatever stands beside it in the batch."""
    long = (prompts[0] * CONTEXT)[: CONTEXT - 3]
    tokens = list(engine.generate([long, prompts[1]], Sampling(max_tokens=50)))
    written = answers(tokens, 2)
    assert len(written[0]) <= 3
    assert written[1] == answers(list(engine.generate([prompts[1]], Sampling(max_tokens=50))), 1)[0]
    alone = answers(list(engine.generate([long], Sampling(max_tokens=50))), 1)[0]
    assert written[0] == alone


def test_the_full_context_can_be_scored(engine, prompts):
    sequence = (prompts[0] * CONTEXT)[:CONTEXT]
    (scores,) = engine.score([sequence[:1]], [sequence[1:]])
    assert len(scores) == CONTEXT - 1
    assert np.isfinite(scores).all()


def too_long(prompts: list[list[int]]) -> list[list[int]]:
    return [prompts[0], (prompts[0] * CONTEXT)[:CONTEXT]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (too_long, r"prompt 1 has 128 tokens.*context of 128"),
        (lambda prompts: [prompts[0], []], "prompt 1 is empty"),
        (lambda prompts: [[*prompts[0], 10**6]], "prompt 0 holds token 1000000"),
        (lambda prompts: [[-1, *prompts[0]]], "prompt 0 holds token -1"),
    ],
)
def test_bad_prompts_are_refused_before_anything_runs(engine, prompts, make: Callable, says: str):
    with pytest.raises(BadInput, match=says):
        engine.generate(make(prompts), GREEDY)


def test_bad_continuations_are_refused(engine, prompts):
    with pytest.raises(BadInput, match="does not fit"):
        engine.score([prompts[0]], [prompts[0] * CONTEXT])
    with pytest.raises(BadInput, match="holds token 400"):
        engine.score([prompts[0]], [[400]])
    with pytest.raises(BadInput, match="do not go with"):
        engine.score(prompts, [])
    with pytest.raises(BadInput, match="does not fit"):
        engine.score_top([prompts[0]], [prompts[0] * CONTEXT], top_logits=2)


def test_an_empty_batch_is_no_error(engine):
    assert list(engine.generate([], GREEDY)) == []
    assert engine.score([], []) == []
    assert engine.score_top([], [], top_logits=2) == []


def test_a_reader_may_stop_early(engine, prompts):
    tokens = engine.generate(prompts, GREEDY)
    next(tokens)
    tokens.close()
    assert len(list(engine.generate(prompts, Sampling(max_tokens=1)))) == len(prompts)


def test_two_answers_may_be_read_in_turns(engine, prompts):
    """And something may be scored while one is being read."""
    whole = [[token.id for token in engine.generate(batch, GREEDY)] for batch in (prompts[:2], prompts[2:])]
    one, other = engine.generate(prompts[:2], GREEDY), engine.generate(prompts[2:], GREEDY)
    read: list[list[int]] = [[], []]
    for _ in range(6):
        read[0].append(next(one).id)
        read[1].append(next(other).id)
        engine.score(prompts[:1], [[5, 6]])
    assert read[0] + [token.id for token in one] == whole[0]
    assert read[1] + [token.id for token in other] == whole[1]


def test_info(engine, name, folders):
    info = engine.info()
    assert (info.engine, info.precision, info.context_tokens, info.threads) == (name, "float32", CONTEXT, 1)
    assert info.parameters == load_engine("transformers", folders["transformers"], threads=1).info().parameters
    assert 4 * info.parameters < info.weights_bytes < 4 * info.parameters + 100_000


def test_a_folder_without_a_model(name, tmp_path):
    with pytest.raises(BadInput, match=str(tmp_path)):
        load_engine(name, tmp_path)


def test_a_damaged_model(name, folders, tmp_path):
    shutil.copytree(folders[name], tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        if path.suffix in (".safetensors", ".onnx", ".gguf"):
            path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_engine(name, tmp_path / "model")
