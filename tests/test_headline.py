"""The headline benchmark: its data, its grid, the choice it makes and what it shows; one cell runs on a tiny model."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from slmops.data.split import split
from slmops.errors import BadInput
from slmops.progress import Silent
from slmops.recipe.student import StudentSettings
from slmops.recipe.training import TrainSettings
from slmops.tasks import Extraction

PARTS_TO_COME = {"student.head": StudentSettings, "student.heal": StudentSettings, "train.on_policy": TrainSettings}
FOLDER = Path(__file__).parents[1] / "benchmarks"
WORDS = ["jazz", "rock", "soul", "funk", "blues", "swing", "house", "disco"]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch):
    """Imports a part of the benchmark as running it does."""
    monkeypatch.syspath_prepend(FOLDER)
    return import_module


def sentence(*pieces: str | tuple[str, str]) -> dict:
    """Pieces of text; a pair is a text and the slot that it fills."""
    return {"data": [{"text": p} if isinstance(p, str) else {"text": p[0], "entity": p[1]} for p in pieces]}


def plays(first: int, count: int) -> list[dict]:
    numbers = range(first, first + count)
    return [sentence("play ", (f"{WORDS[n % 8]} {n}", "genre"), " in ", (f"room {n}", "place")) for n in numbers]


def rates(first: int, count: int) -> list[dict]:
    return [sentence((f"book {n}", "title"), " gets ", (str(n % 5), "stars")) for n in range(first, first + count)]


def write_snips(folder: Path, train: int = 90, test: int = 4, encoding: str = "utf-8") -> Path:
    for intent, made in (("PlayMusic", plays), ("RateBook", rates)):
        for name, rows in (("train", made(0, train)), ("validate", made(1000, test))):
            path = folder / intent / f"{name}_{intent}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({intent: rows}, ensure_ascii=False), encoding=encoding)
    return folder


def edit(folder: Path, name: str, rows: list[dict], encoding: str = "utf-8") -> None:
    """Rows put in front of those of one file."""
    path = next(folder.rglob(f"{name}.json"))
    ((intent, there),) = json.loads(path.read_text(encoding="utf-8")).items()
    path.write_text(json.dumps({intent: [*rows, *there]}, ensure_ascii=False), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_sentences_of_snips_become_rows(part, tmp_path, encoding) -> None:
    write_snips(tmp_path)
    edit(tmp_path, "train_PlayMusic", [sentence("play ", ("  Beyoncé\n", "artist"), "  please\n")], encoding)
    corpus = part("_headline.snips").read(tmp_path)
    assert corpus.train[0] == {
        "id": "PlayMusic-1",
        "input": "play Beyoncé please",
        "output": {"intent": "PlayMusic", "artist": "Beyoncé"},
    }
    assert (len(corpus.train), len(corpus.test), dict(corpus.left_out)) == (181, 8, {})
    assert all(value in row["input"] for row in corpus.train for value in list(row["output"].values())[1:])
    task = Extraction(corpus.schema, "intent", None, 64)
    assert [task.check(row["output"]) for row in (*corpus.train, *corpus.test)] == [None] * 189


def test_slots_stand_in_the_order_of_the_sentences(part, tmp_path) -> None:
    properties = part("_headline.snips").read(write_snips(tmp_path)).schema["properties"]
    assert [*properties] == ["intent", "title", "genre", "place", "stars"]
    assert properties["intent"] == {"enum": ["PlayMusic", "RateBook"]}


def test_what_is_left_out_of_training_is_counted(part, tmp_path) -> None:
    """A sentence of the test set, one that stands twice, and one that no flat object can hold."""
    write_snips(tmp_path)
    twice = sentence("play ", ("jazz", "genre"), " or ", ("soul", "genre"))
    edit(tmp_path, "train_PlayMusic", [*plays(1000, 1), *plays(7, 1), twice])
    corpus = part("_headline.snips").read(tmp_path)
    assert corpus.left_out == {"also in test": 1, "repeats an earlier row": 1, "fills a slot twice": 1}
    texts = [row["input"] for row in corpus.train]
    assert len(set(texts)) == len(texts) == 180
    assert not {*texts} & {row["input"] for row in corpus.test}


def test_what_is_no_snips_is_refused(part, tmp_path) -> None:
    snips = part("_headline.snips")
    with pytest.raises(BadInput, match=r"no validate_INTENT\.json") as refused:
        snips.read(tmp_path)
    assert "https://github.com/" in refused.value.hint
    write_snips(tmp_path)
    path = tmp_path / "RateBook" / "train_RateBook.json"
    path.write_text('{"RateBook": [{"text": "in one piece"}]}')
    with pytest.raises(BadInput, match=r"train_RateBook\.json: not a file of SNIPS: KeyError\('data'\)"):
        snips.read(tmp_path)
    path.unlink()
    with pytest.raises(BadInput, match="there is no train_RateBook"):
        snips.read(tmp_path)
    write_snips(tmp_path)
    edit(tmp_path, "validate_RateBook", [sentence(("one", "title"), " and ", ("two", "title"))])
    with pytest.raises(BadInput, match="a test sentence fills a slot twice"):
        snips.read(tmp_path)


def test_banking77_is_read_with_some_test_rows_of_each_intent(part, tmp_path) -> None:
    banking77 = part("_headline.banking77")
    for side, count in (("train", 40), ("test", 20)):
        rows = [f'"{side}, message  {i} of {label}",{label}' for label in ("lost", "late") for i in range(count)]
        rows += ['"Test, message 0 of LOST",lost'] if side == "train" else []
        (tmp_path / f"{side}.csv").write_text("\n".join(["text,category", *rows]) + "\n")
    corpus = banking77.read(tmp_path)
    assert (len(corpus.train), corpus.left_out) == (80, {"also in test": 1})
    assert Counter(row["output"]["intent"] for row in corpus.test) == {"lost": 13, "late": 13}
    assert corpus.train[0]["input"] == "train, message 0 of lost"
    assert corpus.schema["properties"] == {"intent": {"enum": ["late", "lost"]}}
    (tmp_path / "test.csv").write_text("text,label\nHi,lost\n")
    with pytest.raises(BadInput, match=r"test\.csv: not a file of Banking77"):
        banking77.read(tmp_path)


def test_dialogues_are_read_with_one_summary_or_three(part, tmp_path) -> None:
    dialogsum, corpora = part("_headline.dialogsum"), part("_headline.corpus")
    dev = [{"fname": f"dev_{n}", "dialogue": f"A: {n}?", "summary": f"They say {n}."} for n in range(200)]
    three = {f"summary{n}": f"Way {n}." for n in (1, 2, 3)}
    test = [{"fname": f"test_{n}", "dialogue": f"A: {n}!", **three} for n in range(210)]
    for name, rows in (("dev", dev), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = dialogsum.read(tmp_path)
    assert corpus.train[1] == {"id": "dev_1", "input": "A: 1?", "output": "They say 1."}
    assert (len(corpus.test), corpus.test[0]["output"]) == (200, ["Way 1.", "Way 2.", "Way 3."])
    files = corpora.write(corpus, "few", 1, tmp_path / "rows")
    assert not any("schema" in told for told in files.overrides())
    assert [len(path.read_text().splitlines()) for path in (files.train, files.pool, files.test)] == [180, 20, 200]
    (tmp_path / "dev.jsonl").write_text('{"fname": "dev_0"}\n')
    with pytest.raises(BadInput, match=r"dev\.jsonl: not a file of DialogSum: KeyError"):
        dialogsum.read(tmp_path)


@pytest.mark.parametrize("seed", [1, 2])
def test_few_labels_and_a_pool_of_the_rest(part, tmp_path, seed) -> None:
    corpora, corpus = part("_headline.corpus"), part("_headline.snips").read(write_snips(tmp_path / "raw"))
    labelled, pool = corpora.parted(corpus, "few", seed)
    assert (labelled, pool) == corpora.parted(corpus, "few", seed)
    assert Counter(row["output"]["intent"] for row in labelled) == {"PlayMusic": 70, "RateBook": 70}
    assert len(pool) == 180 - 140
    assert all(row.keys() == {"id", "input"} for row in pool)
    assert {row["id"] for row in labelled} | {row["id"] for row in pool} == {row["id"] for row in corpus.train}
    assert labelled != corpora.parted(corpus, "few", seed + 1)[0]
    # A run parts the labelled rows itself, by the share that it is told.
    share = corpora.write(corpus, "few", seed, tmp_path / "rows").validation
    train, validation = split(labelled, share, seed, lambda row: row["output"]["intent"])
    assert Counter(row["output"]["intent"] for row in train) == {"PlayMusic": 40, "RateBook": 40}
    assert len(validation) == 60


def test_all_labels_but_of_the_texts_that_make_the_pool(part, tmp_path) -> None:
    corpora, corpus = part("_headline.corpus"), part("_headline.snips").read(write_snips(tmp_path / "raw"))
    labelled, pool = corpora.parted(corpus, "all", 1)
    assert (len(labelled), len(pool)) == (160, 20)
    assert not {row["input"] for row in labelled} & {row["input"] for row in pool}
    assert len(corpora.parted(replace(corpus, pool=3), "few", 1)[1]) == 6


def test_too_few_rows_are_refused(part, tmp_path) -> None:
    corpus = part("_headline.snips").read(write_snips(tmp_path, train=70))
    with pytest.raises(BadInput, match="70 different training texts of PlayMusic are too few"):
        part("_headline.corpus").parted(corpus, "few", 1)
    assert len(part("_headline.corpus").parted(corpus.smaller(), "few", 1)[1]) == 8


def test_every_cell_has_a_name_of_its_own_and_three_seeds_where_it_counts(part) -> None:
    cells = part("_headline.cells")
    for budget in cells.BUDGETS:
        names = [cell.name for cell in cells.grid(budget)]
        assert len(set(names)) == len(names)
        assert {cell.budget for cell in cells.grid(budget)} == {budget}
    rungs = Counter(cell.rung for cell in cells.grid("laptop"))
    for rung in ("snips.few.tags-06-first-trim", "snips.all.lm-28-imp-trim", "banking77.few.lm-06-first-trim"):
        assert {rungs[f"{rung}.default.unhealed.{precision}"] for precision in ("int8", "int4")} == {3}


def test_cells_are_settings_of_the_recipe(part, tmp_path, tiny) -> None:
    """A cell that asks for a part which this version does not have is refused, and told which."""
    cells, work = part("_headline.cells"), part("_headline.running").Work
    corpus = part("_headline.snips").read(write_snips(tmp_path / "raw"))
    every = [*cells.grid("laptop"), *cells.grid("gpu")]
    different = {tuple(cell.overrides()): cell for cell in every if cell.task == "snips" and cell.seed == 1}
    for cell in different.values():
        here = replace(cell, extra=(f"teachers.0.model={json.dumps(str(tiny.folder))}",))
        wanted = {told.partition("=")[0] for told in cell.overrides()} & PARTS_TO_COME.keys()
        absent = [key for key in wanted if key.partition(".")[2] not in PARTS_TO_COME[key].model_fields]
        if absent:
            with pytest.raises(BadInput, match=absent[0]):
                work.of(here, corpus, tmp_path / "rows")
            continue
        recipe = work.of(here, corpus, tmp_path / "rows").recipe
        assert recipe.seed == 1
        if cell.student:
            assert recipe.student.carve.layers == cell.student.layers
            assert cell.precision in (recipe.compress.precision, None)
    assert len(different) > 20


def test_a_graph_ends_with_evidence_and_validation(part, tmp_path, tiny) -> None:
    cells, running = part("_headline.cells"), part("_headline.running")
    corpus = part("_headline.snips").read(write_snips(tmp_path / "raw"))
    local = (f"teachers.0.model={json.dumps(str(tiny.folder))}",)
    student = running.Work.of(
        cells.Cell("snips", "few", 1, cells.Student("language", 1), extra=local), corpus, tmp_path / "rows"
    )
    nodes = {node.id: node for node in student.nodes}
    assert {"evaluate", "score:shipped", "validation:shipped", "validation:teacher"} <= nodes.keys()
    assert not {"bundle", "card", "report"} & nodes.keys()
    assert nodes["validation:shipped"].inputs == {"model": "shipped", "data": "validation"}
    assert set(student.missing(tmp_path / "home")) == nodes.keys()
    # What is asked of an unshipped student is how to train it.
    cell = cells.Cell("snips", "few", 1, cells.Student("language", 1), "kl", precision=None, extra=local)
    unshipped = {node.id for node in running.Work.of(cell, corpus, tmp_path / "rows").nodes}
    assert {"score:student", "score:baseline", "validation:student"} <= unshipped
    assert not {"shipped", "evaluate", "teacher:same"} & unshipped
    # A teacher is chosen before any test row is answered.
    teacher = running.Work.of(cells.Cell("snips", "few", 1, extra=local), corpus, tmp_path / "rows")
    assert {node.id for node in teacher.nodes} == {"base", "data", "teacher", "validation", "validation:teacher"}


def test_a_cell_runs_and_leaves_its_record(part, tmp_path, tiny) -> None:
    """Fitted, taught, cut, trained, exported and measured on test and validation rows, of a tiny model."""
    cells, running, records = (part(f"_headline.{name}") for name in ("cells", "running", "records"))
    corpus = part("_headline.snips").read(write_snips(tmp_path / "raw")).smaller()
    extra = (
        f"teachers.0.model={json.dumps(str(tiny.folder))}",
        "task.max_answer_tokens=64",
        "teachers.0.fit.epochs=60",
        "teachers.0.fit.learning_rate=4.0e-3",
        "teach.min_agreement=0",
        "teach.precision=fp32",
        "compress={precision: fp32}",
        "evaluate.latency_requests=2",
        "teachers.0.fit.freeze_layers=0",
        "train.max_cut_off=0.99",
        "train.baseline=false",
        "evaluate.threads=1",
    )
    cell = cells.Cell("snips", "few", 1, cells.Student("language", 1, "first", "keep"), "text", extra=extra)
    work = running.Work.of(cell, corpus, tmp_path / "rows")
    found = work.run(tmp_path / "home", Silent())
    assert found["rows"] == {"train": 8, "validation": 4, "pool": 8, "test": 6}
    assert found["test"].keys() >= {"teacher", "teacher_same", "student", "shipped", "floor"}
    assert {len(text) for text in found["each"]["test"].values()} == {6}
    assert [len(column) for column in found["counts"]["validation"]["shipped"]] == [4, 4, 4]
    assert found["measured"]["shipped"]["latency_p50_ms"] > 0
    assert {"time_saving_torch", "weights_saving"} <= found["savings"].keys()
    assert {"teacher", "student"} == found["train_s"].keys()
    assert work.missing(tmp_path / "home") == []
    folder = records.Folder(tmp_path / "records")
    folder.write(found)
    assert records.fresh(folder.read(), [cell]) == {cell.name: json.loads(json.dumps(found))}
    # What was asked for has changed, so what was found says nothing of it.
    assert records.fresh(folder.read(), [replace(cell, extra=())]) == {}
    rung = part("_headline.ladder").rungs(folder.read())
    assert part("_headline.table").ladder({("snips", "few"): rung}, {("snips", "few"): rung[0]})


ROWS = {"validation": 20, "test": 40}


def record(rung: str, seed: int, shares: dict[str, dict[str, float]], *, ms: float = 10.0, mb: float = 20.0) -> dict:
    """A made-up record, from the shares of right answers by part and role; each row has one slot, right or wrong."""
    right = {part: {role: answers(ROWS[part], share, seed) for role, share in shares[part].items()} for part in ROWS}
    counts = {part: {role: slots(row) for role, row in roles.items()} for part, roles in right.items()}
    names = ("rouge_l", "chrf") if rung.startswith("dialogsum") else ("exact_match", "field_f1")
    figures = {part: {role: dict.fromkeys(names, x) for role, x in shares[part].items()} for part in ROWS}
    return {
        "cell": f"{rung}.s{seed}",
        "rung": rung,
        "rows": {"train": 280, "pool": 1600, **ROWS},
        "each": right,
        "counts": counts,
        "measured": {
            "teacher": {"latency_p50_ms": 500.0, "weights_bytes": 538e6},
            "shipped": {"latency_p50_ms": ms, "weights_bytes": mb * 1e6},
        },
        "savings": {"time_saving_torch": 1 - ms / 500, "weights_saving": 1 - mb / 538},
        "kept_layers": None if "teacher-" in rung else 6,
        "stage_s": {"student": 100.0, "teacher": 900.0},
        "train_s": {"teacher": 600.0},
        **figures,
    }


def answers(rows: int, share: float, seed: int) -> str:
    """A digit a row: `share` of them 1."""
    row = ["1"] * round(rows * share) + ["0"] * (rows - round(rows * share))
    return "".join(random.Random(f"{seed}{share}").sample(row, rows))


def slots(right: str) -> list[str]:
    wrong = right.translate(str.maketrans("01", "10"))
    return [right, wrong, wrong]


def roles(shipped: float, teacher: float = 0.8) -> dict[str, float]:
    return {"teacher": teacher, "student": shipped, "baseline": 0.4, "shipped": shipped, "floor": 0.2}


SMALL, LARGE = "snips.few.tags-06-first-trim.default.unhealed.int4", "snips.few.lm-28-imp-trim.default.unhealed.int8"


def rung_of(part, name: str, validation: float, test: float, *, seeds: int = 3, **measured: float):
    rows = {"validation": roles(validation), "test": roles(test)}
    return part("_headline.ladder").Rung(name, [record(name, seed, rows, **measured) for seed in range(seeds)])


@pytest.mark.parametrize("test", [0.1, 0.9])
def test_the_choice_goes_by_validation_alone(part, test) -> None:
    """The fastest of those that keep enough, whatever test says."""
    choose = part("_headline.ladder").choose
    small, large = rung_of(part, SMALL, 0.8, test, ms=5), rung_of(part, LARGE, 0.9, 1 - test, ms=200)
    assert choose([large, small]) is small
    assert choose([large, rung_of(part, SMALL, 0.7, test, ms=5)]) is large


def test_where_none_keeps_enough_the_one_that_keeps_most_is_taken(part) -> None:
    choose = part("_headline.ladder").choose
    small, large = rung_of(part, SMALL, 0.5, 0.9, ms=5), rung_of(part, LARGE, 0.6, 0.1, ms=200)
    assert choose([small, large]) is large


def test_a_student_of_fewer_seeds_is_not_chosen(part) -> None:
    choose = part("_headline.ladder").choose
    small, large = rung_of(part, SMALL, 0.9, 0.9, seeds=1), rung_of(part, LARGE, 0.6, 0.6)
    assert choose([small, large]) is large


def test_the_figures_are_those_of_the_contract(part) -> None:
    ladder = part("_headline.ladder")
    small = rung_of(part, SMALL, 0.8, 0.75, ms=5, mb=10)
    bank = rung_of(part, SMALL.replace("snips", "banking77"), 0.8, 0.8)
    figures, spread = ladder.figures({("snips", "few"): small, ("banking77", "few"): bank})
    assert figures["time_saving_torch"] == pytest.approx(0.99)
    assert figures["exact_match_kept"] == pytest.approx(0.75 / 0.8)
    assert figures["slot_f1_kept"] == pytest.approx(0.75 / 0.8)
    assert (figures["exact_match_shipped"], figures["slot_f1_floor"]) == pytest.approx((0.75, 0.2))
    assert figures["teacher_worth_points"] == pytest.approx(35)
    assert figures["teacher_worth_p"] < 0.05
    assert (figures["seeds"], figures["n_test"]) == (3, 40)
    assert (figures["banking77_accuracy_kept"], figures["banking77_accuracy_floor"]) == pytest.approx((1, 0.2))
    assert "banking77_teacher_worth_points" in figures
    low, high = spread["exact_match_kept"]
    assert low < 0.75 / 0.8 < high
    missed = part("_contract").missed(figures, ladder.GOALS)
    # What was not measured is a goal that is missed.
    assert missed == ["time_saving_same_engine", "exact_match_kept", "slot_f1_kept"]


def test_summaries_are_compared_by_rouge(part) -> None:
    name = "dialogsum.few.lm-20-imp-trim.default.unhealed.int8"
    rung, group = rung_of(part, name, 0.3, 0.2), ("dialogsum", "few")
    figures, spread = part("_headline.ladder").figures({group: rung})
    assert figures["dialogsum_rouge_l_kept"] == figures["dialogsum_chrf_kept"] == pytest.approx(0.25)
    assert "dialogsum_rouge_l_kept" in spread
    assert "dialogsum_chrf_kept" not in spread
    assert "R-L  chrF" in part("_headline.table").ladder({group: [rung]}, {group: rung})
    encoded, numbers = (getattr(part("_headline.records"), name) for name in ("encoded", "numbers"))
    for written in ([0.0, 1.0], [0.25, 1 / 3]):
        assert numbers(encoded(written)).tolist() == pytest.approx(written, abs=1e-4)


def test_rungs_are_cells_that_differ_by_seed_alone(part) -> None:
    ladder = part("_headline.ladder")
    rows = {"validation": roles(0.5), "test": roles(0.5)}
    teacher = {"validation": {"teacher": 0.7}, "test": {}}
    records = [record(SMALL, 2, rows), record(LARGE, 1, rows), record(SMALL, 1, rows)]
    found = ladder.rungs([*records, record("snips.few.teacher-e3-f8", 1, teacher)])
    assert [len(rung.records) for rung in found] == [2, 1, 1]
    assert [one["cell"][-1] for one in found[0].records] == ["1", "2"]
    assert found[0].label == "tags-06-first-trim.int4"
    assert [rung.is_teacher for rung in found] == [False, False, True]
    assert {group: len(members) for group, members in ladder.grouped(found).items()} == {("snips", "few"): 2}


def test_the_table_fits_a_terminal_and_marks_the_choice(part) -> None:
    table = part("_headline.table")
    small, large = rung_of(part, SMALL, 0.8, 0.75, ms=5, mb=10), rung_of(part, LARGE, 0.82, 0.8, ms=200, mb=100)
    group = ("snips", "few")
    text = table.ladder({group: [small, large]}, {group: small})
    assert max(map(len, text.splitlines())) <= 80
    (chosen,) = [line for line in text.splitlines() if line.startswith(">")]
    assert chosen.split() == [">", *"tags-06-first-trim.int4 3 .800 .800 .750 .750 5.0 10.0 +35.0*".split()]  # noqa: SIM905
    assert text.index("lm-28") < text.index("tags-06")
    short = table.ladder({group: [small, large]}, {group: small}, short=True)
    assert "lm-28" not in short
    assert "tags-06" in short
    teachers = part("_headline.ladder").rungs(
        [record("snips.few.teacher-e3-f8", 1, {"validation": {"teacher": 0.7}, "test": {}})]
    )
    assert table.teachers(teachers).splitlines()[-1].split() == ["snips.few.teacher-e3-f8", "1", ".700", ".700", "10.0"]
    assert max(map(len, table.NOTE.splitlines())) <= 80


def test_the_figure_has_a_dot_for_each_student_in_both_panels(part) -> None:
    small, large = rung_of(part, SMALL, 0.8, 0.75, ms=5, mb=10), rung_of(part, LARGE, 0.82, 0.8, ms=200, mb=100)
    drawn = ElementTree.fromstring(part("_headline.figure").draw([small, large], small))  # noqa: S314 - our own
    circles = [circle.get("class") for circle in drawn.iter("{http://www.w3.org/2000/svg}circle")]
    of_students = {"tags int4": 2, "lm int8": 2, "teacher": 2, "chosen": 2}
    legend = ("lm int8", "lm int4", "tags int8", "tags int4")
    assert Counter(circles) == Counter(of_students) + Counter(legend)


def test_estimates_come_from_cells_that_were_run(part) -> None:
    cells, records = part("_headline.cells"), part("_headline.records")
    cell = cells.Cell("snips", "few", 2, cells.Student("language", 12))
    rows = {"validation": roles(0.5), "test": roles(0.5)}
    known = [record(SMALL, 1, rows), record(SMALL.replace("few", "all"), 1, rows) | {"stage_s": {"student": 9e9}}]
    assert records.estimate_s(["student"], cell, known) == 200
    assert records.estimate_s(["teacher"], cell, known) == 900
    assert records.estimate_s(["student"], cell, []) == records.GUESS_S["student"]


def arguments(tmp_path: Path, **given) -> argparse.Namespace:
    known = {
        "snips": None,
        "banking77": None,
        "dialogsum": None,
        "home": tmp_path / "home",
        "rows": tmp_path / "rows",
        "quick": False,
    }
    return argparse.Namespace(**known, **{"minutes": 0.0, "cells": None, "readme": False, **given})


def test_no_cell_starts_that_does_not_fit(part, tmp_path, tiny, capsys) -> None:
    headline, cells = part("headline"), part("_headline.cells")
    local = (f"teachers.0.model={json.dumps(str(tiny.folder))}",)
    told = arguments(tmp_path)
    told.snips = write_snips(tmp_path / "raw")
    folder = part("_headline.records").Folder(tmp_path / "records")
    unknown = (*local, "student.wings=2")
    grid = [cells.Cell("snips", "few", seed, extra=local if seed == 1 else unknown) for seed in (1, 2)]
    assert headline.run(grid, folder, told) == ["snips.few.teacher-recipe.s2"]
    said = capsys.readouterr().err
    assert "student.wings" in said
    assert "not started, about" in said
    assert not folder.path.exists()
    assert not (tmp_path / "home").exists()


def test_cells_without_their_data_are_refused(part, tmp_path) -> None:
    headline, cells = part("headline"), part("_headline.cells")
    folder = part("_headline.records").Folder(tmp_path / "records")
    with pytest.raises(BadInput, match="--snips DIR is missing"):
        headline.run([cells.Cell("snips", "few", 1)], folder, arguments(tmp_path))
    with pytest.raises(BadInput, match="no cell is called nothing"):
        headline.chosen_cells("nothing*", "laptop")
    assert headline.chosen_cells(None, "laptop") == []
    for budget, ways in (("laptop", cells.LAPTOP_TEACHERS), ("gpu", cells.GPU_TEACHERS)):
        assert len(headline.chosen_cells("snips.few.teacher-*", budget)) == len(ways)


def test_workers_take_a_training_each_and_say_which_failed(part, tmp_path, monkeypatch) -> None:
    """Both precisions of a training are one worker's."""
    headline, cells = part("headline"), part("_headline.cells")
    grid = [
        cells.Cell("snips", "few", seed, cells.TAGS[0], precision=precision, budget="gpu")
        for seed in (1, 2, 3)
        for precision in ("int8", "int4")
    ]
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, pathlib, sys\n"
        "pattern, place = sys.argv[-1], pathlib.Path(sys.argv[1])\n"
        "(place / pattern.replace('*', '_')).write_text(str(len(os.sched_getaffinity(0))))\n"
        "sys.exit('.s2' in pattern)\n"
    )
    monkeypatch.setattr(headline, "__file__", str(worker))
    monkeypatch.setattr(sys, "argv", ["headline.py", str(tmp_path)])
    told = arguments(tmp_path, minutes=1.0, workers=3)
    folder = part("_headline.records").Folder(tmp_path / "records")
    rung = "snips.few.tags-06-first-trim.default.unhealed"
    assert headline.side_by_side(grid, folder, told) == [f"{rung}.*.s2"]
    shares = [int((tmp_path / f"{rung}._.s{seed}").read_text()) for seed in (1, 2, 3)]
    assert min(shares) < len(os.sched_getaffinity(0)) or len(os.sched_getaffinity(0)) == 1
    told.minutes = -1.0
    assert headline.side_by_side(grid, folder, told) == []


def test_times_of_a_shape_are_lent_to_what_was_trained_elsewhere(part, tmp_path) -> None:
    cells, ladder = part("_headline.cells"), part("_headline.ladder")
    on_gpu = {cell.name for cell in cells.grid("gpu")}
    assert {cell.name for cell in cells.grid("times")} < on_gpu
    assert all(cell.overrides()[-4:] == list(cells.ONE_PASS) for cell in cells.grid("times"))
    (trained,) = rung_of(part, SMALL, 0.8, 0.8, seeds=1, ms=0, mb=10).records
    trained = {**trained, "measured": {"shipped": {"weights_bytes": 1e7}}, "savings": {"weights_saving": 0.9}}
    timed = {**trained, "measured": {"shipped": {"weights_bytes": 9e6, "latency_p50_ms": 7.0}}}
    timed["savings"] = {"weights_saving": 0.91, "time_saving_torch": 0.95}
    (rung,) = ladder.rungs([trained], [timed])
    assert [rung.measured("shipped", what) for what in ("latency_p50_ms", "weights_bytes")] == [7.0, 1e7]
    assert [rung.saved(what) for what in ("time_saving_torch", "weights_saving")] == [[0.95], [0.9]]
    (alone,) = ladder.rungs([trained])
    assert alone.measured("shipped", "latency_p50_ms") is None
    assert alone.saved("time_saving_torch") == []


def test_the_rows_for_times_are_few_but_what_a_teacher_is_fitted_on(part, tmp_path) -> None:
    corpus = part("_headline.snips").read(write_snips(tmp_path, train=90, test=20))
    brief = corpus.brief()
    assert (brief.few, brief.pool, brief.validation, len(brief.test)) == (corpus.few, 4, 2, 12)


def test_what_other_processes_shape_is_in_no_record_of_a_gpu(part) -> None:
    measured = {"latency_p50_ms": 9.0, "peak_rss_bytes": 1e9, "weights_bytes": 1e7, "weights_saving": 0.9}
    assert part("_headline.running")._size(measured) == {"weights_bytes": 1e7, "weights_saving": 0.9}
    # What keeps enough is then compared by its size.
    small, large = rung_of(part, SMALL, 0.8, 0.8, ms=0, mb=10), rung_of(part, LARGE, 0.8, 0.8, ms=0, mb=100)
    assert part("_headline.ladder").choose([large, small]) is small


def test_the_documents_have_a_place_for_the_table(part, tmp_path, monkeypatch) -> None:
    headline: ModuleType = part("headline")
    for name in ("README", "PAGE"):
        copy = tmp_path / getattr(headline, name).name
        copy.write_text(getattr(headline, name).read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(headline, name, copy)
    monkeypatch.setattr(headline, "DRAWINGS", {name: tmp_path / f"{name}.svg" for name in headline.DRAWINGS})
    small, large = rung_of(part, SMALL, 0.8, 0.7, ms=5, mb=10), rung_of(part, LARGE, 0.82, 0.8, ms=200, mb=100)
    groups, chosen = {("snips", "few"): [small, large]}, {("snips", "few"): small}
    figures = part("_headline.ladder").figures(chosen)[0] | {"cells_missing": 7}
    said = headline.missed_words(figures)
    assert "exact_match_kept 0.875 (goal 0.97)" in said
    assert "time_saving_same_engine not measured" in said
    whole = headline.ladder_text([small, large], groups, chosen)
    for budget in headline.DRAWINGS:
        headline.write_documents(whole, groups, chosen, said, budget)
    assert "No cell" not in headline.README.read_text() + headline.PAGE.read_text()
    assert "lm-28" not in (readme := headline.README.read_text()).partition("headline:begin")[2]
    assert "7 have no record yet" in readme
    assert "lm-28" in headline.PAGE.read_text()
    assert all(drawing.read_text().startswith("<svg xmlns") for drawing in headline.DRAWINGS.values())
    with pytest.raises(BadInput, match="no student of SNIPS"):
        headline.write_documents(whole, {}, {}, said, "laptop")
