"""Every line of the checklist on a bundle that keeps to it, and on one that does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.bundle import open_bundle
from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.checklist import memory, validate
from slmops.evaluate.checklist.abstain import abstains, none_of_these
from slmops.evaluate.checklist.answers import answers_in_domain
from slmops.evaluate.checklist.deterministic import deterministic
from slmops.evaluate.checklist.form import output_format
from slmops.evaluate.checklist.lengths import over_lengths, padded
from slmops.evaluate.checklist.malice import control_tokens_as_text, hostile_inputs
from slmops.evaluate.checklist.memory import memory_growth
from slmops.evaluate.checklist.parity import parity
from slmops.evaluate.checklist.served import Served
from slmops.evaluate.checklist.subject import in_domain
from slmops.progress import Silent
from slmops.tasks import Classification, Extraction

CONTEXT = 128


def asked(subject):
    return subject.greedy("in domain", [row["input"] for row in subject.rows], "in domain")


@pytest.fixture(scope="module")
def lines(healthy, rows_file, tiny):
    """The whole checklist, with a soak that decides."""
    found = validate(healthy, rows=rows_file, model=tiny.folder, soak=memory.ENOUGH, threads=1)
    return {line.name: line for line in found}


@pytest.mark.parametrize(
    "name",
    [
        "answers in domain",
        "abstains out of domain",
        "no memory growth",
        "latency over lengths",
        "quality over lengths",
        "hostile inputs handled",
        "control tokens stay text",
        "deterministic",
        "parity with the source",
    ],
)
def test_a_healthy_bundle_passes(lines, name):
    line = lines[name]
    assert line.state == "pass", line
    assert line.figure
    assert line.bound
    assert line.values


def test_a_model_that_knows_four_answers_writes_nonsense_elsewhere(lines):
    assert lines["output format"].state == "fail"
    assert "in domain 4/4" in lines["output format"].detail
    assert 0 < lines["output format"].values["valid"] < 0.95


def test_without_queries_or_source_lines_are_skipped_with_the_reason(subject, healthy):
    examined = subject(healthy, rows=False)
    line = answers_in_domain(examined, [])
    assert (line.state, line.figure) == ("skipped", "")
    assert "--rows" in line.detail
    line = parity(examined, None, 1)
    assert line.state == "skipped"
    assert "--model" in line.detail


def test_rows_of_another_task_are_refused(healthy, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"input": "hello", "output": {"intent": "dance"}}])
    with pytest.raises(BadInput, match=r"rows\.jsonl.*dance"):
        in_domain(open_bundle(healthy), path)


def test_answers_without_form_fail_in_domain(subject, faulty):
    examined = subject(faulty("random"))
    line = answers_in_domain(examined, asked(examined))
    assert line.state == "fail"
    assert line.values["answered"] < 0.95


def test_answers_worse_than_the_evidence_fail_in_domain(subject, make_bundle):
    promising = {"n_test": 400, "models": {"shipped": {"quality": {"exact_match": 0.99}}}}
    examined = subject(make_bundle("promising", evidence=promising))
    wrong = [row | {"output": {"intent": "other", "name": "?"}} for row in examined.rows]
    examined.rows = wrong
    line = answers_in_domain(examined, asked(examined))
    assert line.state == "fail"
    assert line.values["exact_match"] == 0
    assert line.values["answered"] == 1


def test_a_model_that_is_sure_of_everything_fails_out_of_domain(subject, faulty):
    line = abstains(subject(faulty("sure"), rows=False), [])
    assert line.state == "fail"
    assert line.values["answered"] == 1
    assert line.values["invented"] == line.values["texts"]


def test_labels_that_say_none_of_these(task):
    assert none_of_these(task) == {"other"}
    assert none_of_these(Classification(("Out-of-scope", "late", "N/A"), None, 8)) == {"Out-of-scope", "N/A"}
    assert none_of_these(Classification(("late", "early"), None, 8)) == set()
    assert none_of_these(Extraction(task.schema, None, None, 8)) == set()


def test_answers_of_another_task_fail_the_format(subject, make_bundle):
    labels = Classification(("yes", "no"), None, 40).describe()
    examined = subject(make_bundle("labels", task=labels), rows=False)
    examined.greedy("in domain", ["Where is order 4711?"], "in domain")
    line = output_format(examined)
    assert (line.state, line.figure) == ("fail", "0.0% of 1 valid")


def test_nothing_answered_decides_nothing(subject, healthy):
    assert output_format(subject(healthy)).state == "skipped"


def test_a_leak_fails(faulty, tiny, monkeypatch):
    monkeypatch.setattr(memory, "ENOUGH", 600)
    with Served(faulty("leaking"), threads=1) as served:
        line = memory_growth(served, list(tiny.pairs), 600, Silent())
    assert line.state == "fail"
    # 4,000 bytes a request, and what the allocator adds.
    assert 3_500 < line.values["kb_per_1000_requests"] < 6_000
    assert line.values["interval"][0] > memory.MAX_KB_PER_1000


def test_a_short_soak_decides_nothing_even_about_a_leak(faulty, tiny):
    with Served(faulty("leaking"), threads=1) as served:
        line = memory_growth(served, list(tiny.pairs), 20, Silent())
    assert line.state == "skipped"
    assert line.detail.startswith("not enough evidence: 20 requests")


def test_time_that_explodes_with_the_length_fails(subject, faulty):
    latency, _ = over_lengths(subject(faulty("slow")), CONTEXT)
    assert latency.state == "fail"
    assert latency.values["first_token_exponent"] > 2
    assert latency.values["next_token_exponent"] > 1


def test_nonsense_at_length_fails(subject, faulty):
    _, quality = over_lengths(subject(faulty("random")), CONTEXT)
    assert quality.state == "fail"
    assert quality.values["valid"] < 0.8
    assert "tokens" in quality.detail


@pytest.mark.parametrize("tokens", [40, 60, 88])
def test_texts_are_filled_up_to_a_length(healthy, tiny, tokens):
    bundle = open_bundle(healthy)
    text = padded(bundle, "I want my 20 € back", tokens)
    assert text.endswith("I want my 20 € back")
    assert tokens - 12 < len(tiny.prompt(text)) <= tokens


@pytest.mark.parametrize(
    ("fault", "says"),
    [("dying", "died of SIGSEGV"), ("raising", "huge: RuntimeError: a bug"), ("cutting", "longer than the context")],
)
def test_what_does_not_survive_or_cuts_fails(subject, faulty, fault, says):
    line = hostile_inputs(subject(faulty(fault)), CONTEXT)
    assert line.state == "fail"
    assert line.values["handled"] < line.values["inputs"]
    assert any(says in problem for problem in line.values["not_handled"])


def test_a_template_that_lets_messages_steer_fails(subject, make_bundle, tiny_onnx, tmp_path):
    model = Path(shutil.copytree(tiny_onnx, tmp_path / "model"))
    template = model / "chat_template.jinja"
    forgetful = template.read_text().replace("message['content']", "message['content'].replace('\ufdd0', '')")
    template.write_text(forgetful, encoding="utf-8")
    line = control_tokens_as_text(subject(make_bundle("steered", model_folder=model)))
    assert line.state == "fail"
    assert "<|im_end|>" in line.detail


def test_answers_by_chance_fail_determinism(subject, faulty):
    line = deterministic(subject(faulty("random")))
    assert line.state == "fail"
    assert line.values["same_again"] < 1
    assert line.detail.startswith("differs: ")


def test_another_model_fails_parity(subject, healthy, tiny, tmp_path):
    import torch

    from slmops.models.source import load_model, save_model

    model = load_model(tiny.folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    save_model(model, tmp_path / "other", tokenizer_from=tiny.folder)
    line = parity(subject(healthy), tmp_path / "other", 1)
    assert line.state == "fail"
    assert line.values["agreement"] < 0.9
    assert line.values["first_token_kl_nats"] > 0
    assert {"input", "kl_nats", "source", "bundle"} == line.values["worst"][0].keys()


def test_a_bundle_with_fewer_tokens_is_held_against_its_source_as_text(subject, healthy, tiny, tmp_path):
    """A source with tokens that the bundle's vocabulary, which was cut out of it, has not."""
    import torch

    from slmops.models.source import load_model, save_model

    told = json.loads((tiny.folder / "tokenizer.json").read_text())
    vocabulary, more = told["model"]["vocab"], len(told["model"]["vocab"])
    # Never met in a text: both read the same, and one has a row more.
    vocabulary["QQ"] = more
    told["model"]["merges"].append(["Q", "Q"])
    model = load_model(tiny.folder)
    model.resize_token_embeddings(more + 1)
    with torch.no_grad():
        model.get_input_embeddings().weight[more] = 0
    save_model(model, tmp_path / "source", tokenizer_from=tiny.folder)
    (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(told))
    line = parity(subject(healthy), tmp_path / "source", 1)
    assert line.state == "pass"
    assert line.values["agreement"] == 1


def test_a_model_with_another_tokenizer_is_refused(subject, healthy, tiny, tmp_path):
    other = Path(shutil.copytree(tiny.folder, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(BadInput, match="other tokens"):
        parity(subject(healthy), other, 1)
