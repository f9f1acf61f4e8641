"""The benchmark of serving: its traffic, the clock that is the same for all, its figures, and sides on a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from slmops.bundle.labels import label_log_likelihoods
from slmops.engines import Sampling, load_engine
from slmops.recipe.compress import CompressSettings
from slmops.tasks import Classification

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch):
    """Imports a part of the benchmark as running it does."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(FOLDER / "rivals")
    return import_module


@pytest.fixture
def model(part, tiny, tmp_path):
    """The tiny model as a subject that is trained already."""
    subjects = part("_compress_subjects")
    texts = list(tiny.pairs.items())
    rows = [{"id": str(n), "input": texts[n % len(texts)][0], "output": ("yes", "no")[n % 2]} for n in range(40)]
    task = Classification(("yes", "no"), None, 8)
    subject = subjects.Subject("tickets", task, rows[:36], rows[36:], None, {})
    folder = tmp_path / "subject"
    folder.mkdir()
    (folder / "model").symlink_to(tiny.folder)
    subjects.write_data(subject, folder / "data")
    return subjects.Tuned(subject, folder, tiny.tokenizer)


@pytest.fixture
def traffic(part, monkeypatch):
    """The tiny model's context is too short for the real instructions."""
    traffic = part("_serve_traffic")
    monkeypatch.setattr(traffic, "SYSTEM", "Say yes or no.\n")
    return traffic


def test_requests_of_a_load_begin_alike_or_not_at_all(traffic, model) -> None:
    loads = traffic.loads(model, {2: 2, 3: 1}, [2, 4, 6], 90)
    assert list(loads) == ["short_2", "short_3", "prefix_2", "prefix_3"]
    assert [len(stream) for stream in loads["short_2"]] == [2, 2]
    assert {ask["tokens"] for stream in loads["short_3"] for ask in stream} == {2, 4, 6}
    begin = {}
    for name in ("prefix_2", "prefix_3"):
        prompts = [ask["prompt"] for stream in loads[name] for ask in stream]
        begin[name] = prompts[0][:90]
        assert all(prompt[:90] == begin[name] and len(prompt) < 150 for prompt in prompts)
        assert len({tuple(prompt) for prompt in prompts}) > 1
    assert begin["prefix_2"] != begin["prefix_3"], "nobody knows the beginning from the load before"


class Slow:
    """A token for everyone in each step, and a record of who was there."""

    def __init__(self, part) -> None:
        self._progress, self._came = part("serving").Progress(()), part("serving").Came
        self._running: list[int] = []
        self.steps: list[list[int]] = []

    def ask(self, request: int, ask) -> None:
        self._progress.begin(request, ask["tokens"])
        self._running.append(request)

    def step(self) -> Sequence:
        self.steps.append(list(self._running))
        came = [self._progress.take(request, 100 + request) for request in self._running]
        self._running = [one.request for one in came if not one.last]
        return came


def test_a_stream_asks_its_next_request_when_the_last_is_answered(part) -> None:
    server = Slow(part)
    streams = [[{"prompt": [1], "tokens": tokens} for tokens in of_stream] for of_stream in ([1, 3], [2, 2])]
    found = part("serving").drive(server, streams, 0.0)
    assert server.steps == [[0, 1], [1, 2], [2, 3], [2, 3]]
    assert found["answers"] == [[[100], [102] * 3], [[101] * 2, [103] * 2]]
    assert found["tokens"] == 8
    assert found["seconds"] >= found["first_s"][1] >= found["first_s"][0] > 0


def test_an_answer_ends_at_its_length_or_at_an_end(part) -> None:
    progress = part("serving").Progress([7])
    progress.begin(0, 3)
    progress.begin(1, 2)
    taken = [progress.take(*one) for one in ((0, 1), (1, 2), (0, 7), (1, 3))]
    assert [one.last for one in taken] == [False, False, True, True]


def round_of(tokens_per_s: float, first_ms: float) -> dict:
    load = {"tokens": 100, "seconds": 100 / tokens_per_s, "cold_s": 2.0, "answers": [[[1, 2, 9, 4]]]}
    load |= {"first_s": [first_ms / 1e3, 1.0], "next_s": [0.01, 0.02]}
    loads = {f"{kind}_{streams}": load for kind in ("short", "prefix") for streams in (1, 8, 32)}
    return {"loads": loads, "load_s": 1.0, "peak_mb": 1000 / first_ms}


def found(part, **sides: Sequence[tuple[float, float]]) -> dict:
    """Rounds of sides, each with its tokens a second and its milliseconds to the first token."""
    given = {
        name: {"size_bytes": 1e8, "rounds": [round_of(*one) for one in of_side]} for name, of_side in sides.items()
    }
    loads = list(round_of(1, 1)["loads"])
    machine = {"bytes_per_s": 40e9, "products_per_s": 1e11, "prefix_tokens": 500, "inner_parameters": 100_000_000}
    return {"sides": given, "loads": loads, **machine}


def test_the_lead_is_of_the_fastest_over_the_fastest_in_each_round(part) -> None:
    given = found(
        part, int4=[(90, 10), (80, 10)], int8=[(20, 5)] * 2, llamacpp_q4_0=[(60, 20), (40, 20)], transformers=[(9, 99)]
    )
    values, spread = part("_serve_figures").figures(given)
    assert values["lead_over_best_at_8_prefix"] == pytest.approx(1.75)
    assert spread["lead_over_best_at_8_prefix"] == pytest.approx((1.5, 2.0))
    assert values["ttft_ratio_at_8"] == pytest.approx(2.0)
    assert values["memory_ratio"] == pytest.approx(0.5)
    assert values["floor_utilisation"] == pytest.approx(85 * 1e8 / 40e9)
    assert values["prefill_floor_utilisation"] == pytest.approx(500 * 1e8 / 2.0 / 1e11)
    assert values["next_p95_ms_short_32_int8"] == pytest.approx(20)
    goals = part("serve").GOALS
    assert not part("_contract").missed(values, goals)
    text = part("_serve_figures").table(given)
    assert len({line.count("|") for line in text.split("\n\n")[1].splitlines()}) == 1
    assert "| int4, onnxruntime | 85 | 10 | 1000 | 10 | 20 |" in text


def test_without_rivals_there_are_figures_and_missed_goals(part) -> None:
    values, _ = part("_serve_figures").figures(found(part, int4=[(90, 10)]))
    assert values["tokens_per_s_short_8_int4"] == pytest.approx(90)
    assert set(part("_contract").missed(values, part("serve").GOALS)) == set(part("serve").GOALS)


def test_labels_are_led_by_the_fastest_over_the_fastest_in_each_round(part) -> None:
    labels = part("labels")
    given = {
        "int4": {"requests_per_s": [20, 21, 22], "right": 0.5},
        "int4_head_openvino": {"requests_per_s": [30, 50, 40], "right": 0.9},
        "llamacpp_q4_0": {"requests_per_s": [10, 10, 10], "right": 0.75},
        "llamacpp_q8_0": {"requests_per_s": [9, 9, 99], "right": 0.75},
    }
    values, spread = labels.figures(given)
    assert values["classify_ratio_vs_llamacpp"] == pytest.approx(4.0)
    assert spread["classify_ratio_vs_llamacpp"] == pytest.approx((3.0, 5.0))
    assert values["classify_right_int4_head_openvino"] == 0.9
    assert part("_contract").missed(values, labels.GOALS) == ["classify_ratio_vs_llamacpp"]
    assert "| int4 label head, OpenVINO | 40.0 | 0.900 |" in labels.table(given)
    assert labels.lead({"int4": given["int4"]}) is None


def test_answers_are_compared_up_to_the_end_of_the_exact_ones(part) -> None:
    exact, other = ({"rounds": [round_of(1, 1)]} for _ in range(2))
    other["rounds"][0]["loads"]["short_1"]["answers"] = [[[1, 5, 9, 5]]]
    assert part("_serve_figures").as_exact(other, exact, [9]) == pytest.approx(2 / 3)


def test_every_side_is_one_that_can_run(part) -> None:
    sides = part("_serve_sides")
    for one in (*sides.OURS, *sides.HEADS):
        CompressSettings(**one.settings)
    names = [one.name for one in (*sides.OURS, *sides.HEADS, *sides.THEIRS)]
    assert len(set(names)) == len(names)
    assert {sides.EXACT, sides.INT4} <= set(names)
    assert set(part("serve").QUICK.sides) <= set(names)
    pins = {"foundry": "foundry-local-sdk==2.2.1", "llamacpp": "llama_cpp_python==", "openvino": "openvino-genai=="}
    for rival in {one.rival for one in sides.THEIRS}:
        assert rival.script.is_file()
        assert rival.own or pins[rival.name] in rival.lock.read_text(encoding="utf-8")


@pytest.fixture
def asked(part, traffic, model):
    """More requests than are answered at a time, of which some begin alike, and what each is to be answered."""
    loads = traffic.loads(model, {3: 2}, [3, 5], 40)
    engine = load_engine("transformers", model.folder / "model", threads=1)
    engine._end_ids = frozenset()
    streams = [*loads["short_3"], *loads["prefix_3"]]
    job = {"threads": 1, "streams": 2, "room": 128, "ends": [], "labels": False}

    def check(server) -> None:
        found = part("serving").drive(server, streams, 0.001)
        for stream, answers in zip(streams, found["answers"], strict=True):
            for ask, answer in zip(stream, answers, strict=True):
                told = engine.generate([ask["prompt"]], Sampling(max_tokens=ask["tokens"]))
                assert answer == [token.id for token in told]

    return job, check


@pytest.fixture
def bundle(part, model, tiny_onnx, tmp_path, monkeypatch) -> str:
    """What is made of a model that was converted already."""
    ours = part("_serve_ours")
    monkeypatch.setattr(ours, "make_model", lambda _job, _work: {"model": str(tiny_onnx), "size_bytes": 1})
    made: str = ours.make({"source": str(model.folder), "out": str(tmp_path / "ours")}, tmp_path)["model"]
    return made


def test_ours_answers_as_the_exact_weights_do_and_labels(part, model, asked, bundle) -> None:
    job, check = asked
    ours = part("_serve_ours")
    # Its queue is not what is measured.
    check(ours.load({**job, "model": bundle, "streams": 6}))
    requests = part("_serve_traffic").label_loads(model, 2, 2)
    labels = part("serving").drive(ours.load({**job, "model": bundle, "labels": True}), requests, 0.0)
    found = [answer[0] for stream in labels["answers"] for answer in stream]
    task, texts = model.subject.task, [row["input"] for row in model.subject.test]
    engine = load_engine("transformers", model.folder / "model", threads=1)
    assert found == label_log_likelihoods(engine, model.tokenizer, task, texts).argmax(axis=1).tolist()
    right = [task.labels[number] == row["output"] for number, row in zip(found, model.subject.test, strict=True)]
    share = part("labels").share_right
    assert share(model, [[number] for number in found], chosen=True) == sum(right) / 4
    written = [model.tokenizer.encode(task.labels[number]) for number in found]
    assert share(model, written, chosen=False) == sum(right) / 4


def test_static_batches_answer_as_one_by_one(part, model, asked) -> None:
    job, check = asked
    check(part("transformers_serving").Generate({**job, "model": str(model.folder / "model")}))


def test_slots_that_keep_beginnings_answer_as_one_by_one(part, model, asked, tmp_path) -> None:
    pytest.importorskip("llama_cpp", reason="it is compiled, and installed apart")
    job, check = asked
    part("gguf_of").write_gguf(model.folder / "model", tmp_path / "tiny.gguf")
    check(part("llamacpp_serving").LlamaServer({**job, "model": str(tmp_path / "tiny.gguf")}))
