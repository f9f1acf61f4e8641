"""The benchmark of quantisation: its sides, its rows, what is asked of a side, and its figures."""

from __future__ import annotations

import json
from importlib import import_module
from math import exp
from pathlib import Path

import numpy as np
import pytest

from slmops.models.source import load_model
from slmops.models.spelling import spelling
from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trimmed
from slmops.recipe.compress import CompressSettings
from slmops.tasks import Classification

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch):
    """Imports a part of the benchmark as running it does."""
    monkeypatch.syspath_prepend(FOLDER)
    return import_module


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch):
    """Imports what runs in a rival's environment, as running a script there does."""
    monkeypatch.syspath_prepend(FOLDER / "rivals")
    return import_module


def side(nats: float, size_mb: float, tokens_per_s: float, right: list[float]) -> dict:
    """Two texts of three and five tokens, each token worth so many nats; two rounds of speed, the second slower."""
    rounds = [
        {
            "alone_tokens_per_s": tokens_per_s / slower,
            "together_tokens_per_s": 2 * tokens_per_s / slower,
            "load_s": 1.0,
            "peak_mb": 2 * size_mb,
        }
        for slower in (1, 2)
    ]
    log_probs = [[-nats] * 2, [-nats] * 4]
    return {"size_bytes": size_mb * 1e6, "log_probs": log_probs, "right": right, "rounds": rounds}


def found(**rivals: dict) -> dict:
    sides = {
        "fp32": side(1.0, 400, 50, [1, 1, 1, 0]),
        "gptq": side(1.1, 100, 100, [1, 1, 0, 0]),
        "rtn": side(1.3, 80, 120, [1, 0, 0, 0]),
        "gptq_trimmed": side(1.3, 80, 120, [1, 1, 1, 0]),
    }
    counts = {"parameters": 100_000_000, "rows": 2, "tokens": 8, "answer_tokens": [1, 2]}
    one = counts | {"sides": sides | rivals}
    return {"threads": 2, "bytes_per_s": 20e9, "subjects": {"tickets": one, "banking77": one}}


def test_the_figures_of_one_side_and_of_two(part) -> None:
    values, spread = part("_compress_figures").figures(found(olive=side(1.2, 90, 150, [1, 0, 0, 0])))
    assert values["size_saving_vs_fp16"] == pytest.approx(0.6)
    assert values["accuracy_points_drop"] == 0
    assert values["gptq_points_drop"] == pytest.approx(25)
    assert values["perplexity_ratio_vs_fp32"] == pytest.approx(exp(-0.1))
    assert values["perplexity_ratio_vs_olive"] == pytest.approx(exp(0.1))
    assert spread["perplexity_ratio_vs_olive"] == pytest.approx((exp(0.1), exp(0.1)))
    assert values["size_ratio_vs_olive"] == pytest.approx(0.9)
    assert values["memory_ratio_vs_olive"] == pytest.approx(0.9)
    # Both rounds have the same ratio, though the machine was half as fast in one.
    assert spread["speed_ratio_vs_olive"] == pytest.approx((2 / 3, 2 / 3))
    assert values["exact_match_points_over_olive"] == pytest.approx(25)
    assert values["perplexity_gptq"] == values["answer_perplexity_gptq"] == pytest.approx(exp(1.1))
    assert values["tokens_per_s_gptq"] == pytest.approx(75)
    assert values["floor_share_gptq"] == pytest.approx(75 * 100e6 / 20e9)
    assert values["banking77_perplexity_gptq"] == values["perplexity_gptq"]


@pytest.mark.parametrize(
    ("rival", "chosen", "any_of_ours"),
    [
        ((1.2, 100, 150), exp(0.1), exp(0.1)),  # as large, and worse
        ((1.2, 90, 50), 2.0, 2.0),  # smaller and worse, and slower
        ((1.4, 90, 150), 100 / 150, exp(0.1)),  # smaller, worse and faster
        ((1.05, 90, 150), 0.0, exp(-0.25)),  # smaller and better
    ],
)
def test_to_lead_is_to_be_better_at_the_size_or_faster_at_the_quality(part, rival, chosen, any_of_ours) -> None:
    values, _ = part("_compress_figures").figures(found(olive=side(*rival, [1, 0, 0, 0])))
    assert values["lead_over_olive"] == pytest.approx(chosen)
    assert values["lead_of_any_over_olive"] == pytest.approx(any_of_ours)


def test_without_rivals_there_are_figures_and_missed_goals(part) -> None:
    values, _ = part("_compress_figures").figures(found())
    assert not [name for name in values if "olive" in name]
    assert {"lead_over_olive", "banking77_lead_over_openvino"} <= set(
        part("_contract").missed(values, part("compress").GOALS)
    )


def test_the_table_has_a_row_for_every_side_and_one_for_the_size_alone(part) -> None:
    lines = part("_compress_figures").table(found(olive=side(1.2, 90, 150, [1, 0, 0, 0]))).splitlines()
    tickets = lines[: lines.index("", 2)]
    names = [line.split("|")[1].strip() for line in tickets if line.startswith("|")][2:]
    assert names == [
        *("fp32", "fp16 (size alone)", "int4 rtn", "int4 gptq"),
        *("int4 gptq, vocabulary trimmed", "Olive int4"),
    ]
    assert "| 200.0 |" in next(line for line in tickets if "fp16" in line)
    assert len({line.count("|") for line in tickets if line.startswith("|")}) == 1


def test_every_side_is_one_that_can_run(part) -> None:
    sides = part("_compress_sides")
    for one in sides.OURS:
        CompressSettings(**one.settings)
    names = [one.name for one in (*sides.OURS, *sides.THEIRS)]
    assert len(set(names)) == len(names)
    assert {sides.EXACT, sides.CHOSEN} <= {one.name for one in sides.OURS}
    pins = {"olive": "olive-ai==0.13.0", "llamacpp": "llama_cpp_python==", "openvino": "nncf=="}
    for rival in part("compress").rivals():
        assert rival.script.is_file()
        assert pins[rival.name] in rival.lock.read_text(encoding="utf-8")


def test_rows_that_are_asked_about_are_not_those_trained_on(part) -> None:
    subjects = part("_compress_subjects")
    tickets = subjects.tickets_subject(subjects.Amount(train=30, test=20, layers=None, optimisation={}))
    assert (len(tickets.train), len(tickets.test)) == (30, 20)
    assert not {row["input"].lower() for row in tickets.train} & {row["input"].lower() for row in tickets.test}


def test_banking77_is_asked_for_its_label_alone(part, tmp_path) -> None:
    subjects = part("_compress_subjects")
    for name, numbers in (("train", range(24)), ("test", range(24, 36))):
        lines = [f"message number {n},label_{n % 3}\n" for n in numbers]
        (tmp_path / f"{name}.csv").write_text("text,category\n" + "".join(lines), encoding="utf-8")
    amount = subjects.Amount(train=5, test=6, layers=2, optimisation={})
    banking = subjects.banking77_subject(tmp_path, amount)
    assert (len(banking.train), len(banking.test), banking.layers) == (15, 6, 2)
    assert isinstance(banking.task, Classification)
    assert {row["output"] for row in [*banking.train, *banking.test]} == set(banking.task.labels)


@pytest.fixture
def tuned(part, tiny, tmp_path):
    """The tiny model as a subject that was trained already."""
    subjects = part("_compress_subjects")
    task = Classification(("yes", "no"), None, 8)
    rows = [{"id": str(n), "input": f"is {n} even", "output": ("yes", "no")[n % 2]} for n in range(40)]
    subject = subjects.Subject("tickets", task, rows[:36], rows[36:], 1, {"epochs": 1, "batch_tokens": 256})

    def run(name: str, job: dict) -> dict:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        return part("_compress_ours").tune(job, work / name)

    return lambda: subjects.tuned(subject, tiny.folder, tmp_path, run)


def test_a_subject_is_trained_once(part, tuned, tmp_path) -> None:
    model = tuned()
    assert load_model(model.folder / "model").config.num_hidden_layers == 1
    weights = next((model.folder / "model").glob("*.safetensors"))
    before = weights.stat().st_mtime_ns
    assert tuned().folder == model.folder
    assert weights.stat().st_mtime_ns == before
    text, prompt = model.texts(model.subject.test)[0], model.prompts(model.subject.test)[0]
    assert text[: len(prompt)] == prompt
    assert text[-1] in model.tokenizer.end_ids
    answers = [
        text[len(prompt) :]
        for text, prompt in zip(model.texts(model.subject.test), model.prompts(model.subject.test), strict=True)
    ]
    assert model.right(answers) == [1.0] * 4
    assert model.right([[], *answers[1:]]) == [0.0, 1.0, 1.0, 1.0]


def test_our_side_is_converted_answers_and_scores(part, tuned, tmp_path) -> None:
    ours, measuring, model = part("_compress_ours"), part("rivals.measuring"), tuned()
    job = {"source": str(model.folder), "out": str(tmp_path / "fp32"), "settings": {"precision": "fp32"}}
    made = ours.make(job, tmp_path)
    assert made["size_bytes"] > 0
    loaded = {"model": made["model"], "source": str(model.folder), "threads": 1}
    found = measuring.quality(ours.Ours, loaded | part("compress").asked(model))
    assert [len(row) + 1 for row in found["log_probs"]] == [len(ids) for ids in model.texts(model.subject.test)]
    assert len(found["answers"]) == len(model.subject.test)
    timed = {"prompts": model.prompts(model.subject.test), "tokens": 6, "repeats": 1}
    speed = measuring.speed(ours.Ours, loaded | timed)
    assert min(speed.values()) > 0
    # An answer that nothing ends is as long as it may be.
    written = ours.Ours(loaded).write(timed["prompts"], 6, ())
    assert [len(ids) for ids in written.answers] == [6] * 4


def test_a_side_with_other_tokens_is_asked_and_weighed_in_those_of_the_source(part, tuned, tmp_path) -> None:
    ours, measuring, model = part("_compress_ours"), part("rivals.measuring"), tuned()
    found = {}
    for name, cut in (("whole", {}), ("trimmed", {"vocabulary": "trim", "extra_tokens": 0})):
        settings = {"precision": "fp32", **cut}
        job = {"source": str(model.folder), "out": str(tmp_path / name), "settings": settings}
        loaded = {"model": ours.make(job, tmp_path)["model"], "threads": 1}
        found[name] = measuring.quality(ours.Ours, loaded | part("compress").asked(model))
    texts = model.texts(model.subject.test)
    assert [len(row) + 1 for row in found["trimmed"]["log_probs"]] == [len(ids) for ids in texts]
    kept = spelling(model.tokenizer, Tokenizer.load(tmp_path / "trimmed" / "model")).kept
    assert {id for answer in found["trimmed"]["answers"] for id in answer} <= {*kept}
    assert max(kept) >= len(kept)
    # Fewer tokens share what there is, so none has less.
    for few, many in zip(found["trimmed"]["log_probs"], found["whole"]["log_probs"], strict=True):
        assert all(a > b - 1e-4 for a, b in zip(few, many, strict=True))


def test_pieces_count_for_the_token_in_which_they_end(part, tiny) -> None:
    ours, whole = part("_compress_ours"), tiny.tokenizer
    small, _ = trimmed(whole, set(), extra=0)
    told = ours.Translation(whole, small, spelling(whole, small))
    text = whole.encode("order refund order")
    own = told.read(text)
    assert len(own) > len(text)
    by_token = told.by_token(text, own, np.ones(len(own) - 1, dtype=np.float32))
    assert len(by_token) == len(text) - 1
    sizes = [len(told.spelled.pieces[id]) for id in text]
    assert by_token.tolist() == [sizes[0] - 1 + sizes[1], *sizes[2:]]


def test_answers_end_where_they_are_told_to(theirs) -> None:
    answers = theirs("measuring").Answers(3, limit=3, ends=[0])
    assert answers.take([5, 0, 6])
    assert answers.running == [0, 2]
    assert answers.take([0, 9, 7])
    assert not answers.take([9, 9, 8])
    assert answers.done().answers == [[5, 0], [0], [6, 7, 8]]


def test_log_probabilities_are_of_the_token_behind(theirs) -> None:
    logits = np.log(np.array([[1, 3], [1, 1], [9, 1]], dtype=np.float32)) + 7
    found = theirs("measuring").log_probs_of(logits, [0, 1, 0])
    assert np.exp(found) == pytest.approx([0.75, 0.5])


def test_a_model_is_the_same_as_gguf(theirs, tiny, tmp_path) -> None:
    """Read back by transformers, which puts rotary pairs where it had them."""
    from gguf import GGUFReader

    theirs("gguf_of").write_gguf(tiny.folder, tmp_path / "tiny.gguf")
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "tiny.gguf").tensors}
    model = load_model(tiny.folder)
    assert len(tensors) == len(list(model.named_parameters()))
    query = model.get_parameter("model.layers.1.self_attn.q_proj.weight").detach().numpy()
    written = tensors["blk.1.attn_q.weight"].astype(np.float32)
    config = json.loads((tiny.folder / "config.json").read_text())
    size = config["hidden_size"] // config["num_attention_heads"]
    for head in range(config["num_attention_heads"]):
        rows = slice(head * size, (head + 1) * size)
        halves, pairs = query[rows], written[rows]
        assert pairs[::2] == pytest.approx(halves[: size // 2], abs=1e-3)
        assert pairs[1::2] == pytest.approx(halves[size // 2 :], abs=1e-3)
    assert tensors["blk.0.attn_norm.weight"].dtype == np.float32
