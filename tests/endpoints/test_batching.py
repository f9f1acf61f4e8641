"""Asking in batches: each question is decided, none is handed in twice, and what was handed in is collected."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from slmops.endpoints.money import PICO, Tariff
from slmops.errors import BadInput, BudgetReached, Interrupted, SlmopsError
from slmops.privacy.audit import EGRESS, Gate, read_log
from slmops.recipe.teachers import Batching
from tests.endpoints.batch_server import EXPIRED, NO_LINE, BatchServer
from tests.endpoints.questions import MAX_TOKENS, PRICE, ask, kept, questions
from tests.endpoints.teacher_server import Act

HOW = Batching(poll_seconds=0.005)
TARIFF = Tariff.of(PRICE, 0.5)
MOST = TARIFF.most(questions(1)[0].messages, MAX_TOKENS)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "aiohttp", "tests.endpoints.questions"])


def batch(**changed: Any) -> Batching:
    return HOW.model_copy(update=changed)


def once(text: str, act: Act):
    """The act of the first request with a text; all others are answered."""
    seen = set[str]()

    def behave(_number: int, asked: str) -> Act:
        first = asked not in seen
        seen.add(asked)
        return act if first and asked == text else Act(text=asked.upper())

    return behave


def test_every_question_is_answered_once_at_the_batch_price_behind_a_pilot(tmp_path):
    with BatchServer() as server:
        records, aside = ask(server.url, questions(60), tmp_path / "l.db", key="secret", batch=HOW)
        again, _ = ask(server.url, questions(60), tmp_path / "l.db", batch=HOW)
    assert {key: record["text"] for key, record in records.items()} == {f"k{i}": f"TEXT {i}" for i in range(60)}
    assert (again, aside) == (records, {})
    assert [len(server.lines(i)) for i in range(len(server.uploads))] == [20, 40]
    assert set(server.asked.values()) == {1}
    assert kept(tmp_path / "l.db", 60)[1].pico == server.charged
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_line_has_the_form_of_the_interface(tmp_path):
    with BatchServer() as server:
        ask(server.url, questions(1), tmp_path / "l.db", batch=HOW)
    body = {"model": "toy", "messages": [{"role": "user", "content": "text 0"}], "max_tokens": MAX_TOKENS}
    line = {"custom_id": "k0", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert server.lines(0) == [line]


def test_files_are_no_longer_and_no_larger_than_allowed(tmp_path):
    with BatchServer() as server:
        ask(server.url, questions(10), tmp_path / "a.db", batch=batch(requests=4))
        ask(server.url, questions(10), tmp_path / "b.db", batch=batch(file_mb=0.0004))
    sizes = [len(server.lines(i)) for i in range(len(server.uploads))]
    assert sizes[:3] == [4, 4, 2]
    assert max(len(upload) for upload in server.uploads[3:]) <= 400
    assert sum(sizes[3:]) == 10


def test_a_request_that_no_file_holds_is_set_aside(tmp_path):
    with BatchServer() as server:
        records, aside = ask(server.url, questions(3), tmp_path / "l.db", batch=batch(file_mb=0.0001))
    assert (records, server.uploads) == ({}, [])
    assert all("and a file of a batch 0.0001 MB" in reason for reason in aside.values())


def test_no_batch_passes_the_budget_and_a_larger_one_goes_on(tmp_path):
    cap = 6.5 * MOST.pico / PICO
    with BatchServer() as server:
        with pytest.raises(BudgetReached, match=r"teach\.budget\.usd"):
            ask(server.url, questions(100), tmp_path / "l.db", batch=HOW, usd=cap)
        assert len(server.lines(0)) == 6
        assert 30 < server.asked.total() < 100
        assert server.charged == kept(tmp_path / "l.db", 100)[1].pico <= cap * PICO
        records, _ = ask(server.url, questions(100), tmp_path / "l.db", batch=HOW, usd=1.0)
    assert len(records) == 100
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize(
    "act", [EXPIRED, NO_LINE, Act("status", status=500), Act("status", status=429), Act("garbage")]
)
def test_what_failed_in_part_is_asked_anew_and_the_rest_is_not(tmp_path, act):
    with BatchServer(once("text 3", act)) as server:
        records, aside = ask(server.url, questions(8), tmp_path / "l.db", batch=HOW)
    assert (len(records), aside) == (8, {})
    assert [len(server.lines(i)) for i in range(len(server.uploads))] == [8, 1]
    spent = kept(tmp_path / "l.db", 8)[1]
    unknown = MOST.pico if act in (NO_LINE, Act("garbage")) else 0
    assert server.charged <= spent.pico == 8 * server.charged // server.charged_requests + unknown


def test_what_fails_again_and_again_or_is_refused_is_set_aside(tmp_path):
    statuses = {"text 3": 500, "text 5": 400}

    def behave(_number, text):
        return Act("status", status=statuses[text]) if text in statuses else Act(text=text)

    with BatchServer(behave) as server:
        records, aside = ask(server.url, questions(8), tmp_path / "l.db", batch=HOW, retries=2)
    assert len(records) == 6
    assert {key: reason.partition(" answers ")[2] for key, reason in aside.items()} == {
        "k3": "500: as told",
        "k5": "400: as told",
    }
    assert (server.asked["text 3"], server.asked["text 5"]) == (3, 1)


def test_a_batch_that_expires_gives_what_it_has(tmp_path):
    def behave(number, text):
        return EXPIRED if number in (3, 4) else Act(text=text)

    with BatchServer(behave, ends=lambda number: "expired" if number == 1 else "completed") as server:
        records, aside = ask(server.url, questions(6), tmp_path / "l.db", batch=HOW)
    assert (len(records), aside) == (6, {})
    assert [len(server.lines(i)) for i in range(len(server.uploads))] == [6, 2]
    assert server.charged == kept(tmp_path / "l.db", 6)[1].pico


def test_results_of_requests_that_nobody_made_are_passed_over(tmp_path):
    def serve(_number: int, content: bytes) -> tuple[bytes, bool]:
        odd = content.replace(b'"custom_id": "k2"', b'"custom_id": "k99"')
        return odd + b'[1]\n{"custom_id": 7}\n' + odd, True

    with BatchServer(serve=serve) as server:
        records, aside = ask(server.url, questions(5), tmp_path / "l.db", batch=HOW, retries=1)
    assert sorted(records) == ["k0", "k1", "k3", "k4"]
    assert list(aside) == ["k2"]
    assert "has no result in the batch batch-1" in aside["k2"]
    assert kept(tmp_path / "l.db", 100)[0].keys() == records.keys()
    assert kept(tmp_path / "l.db", 5)[1].pico == 4 * 55_000_000 + 2 * MOST.pico, "it may have been charged each time"


@pytest.mark.parametrize("told", [False, True])
def test_a_file_of_results_that_is_cut_off_is_read_again(tmp_path, told):
    """Whether the connection breaks, or the file as a whole is too short."""
    with BatchServer(serve=lambda n, content: (content[: len(content) * n // 3], told if n < 3 else True)) as server:
        records, aside = ask(server.url, questions(9), tmp_path / "l.db", batch=HOW)
    assert (len(records), aside) == (9, {})
    assert (server.downloads, len(server.batches)) == (3, 1)
    assert server.charged == kept(tmp_path / "l.db", 9)[1].pico


def test_a_file_that_never_comes_loses_nothing(tmp_path):
    with BatchServer(serve=lambda n, content: (content[:9], False) if n <= 4 else (content, True)) as server:
        with pytest.raises(SlmopsError, match="does not answer") as error:
            ask(server.url, questions(5), tmp_path / "l.db", batch=HOW)
        assert "goes on" in (error.value.hint or "")
        records, _ = ask(server.url, questions(5), tmp_path / "l.db", batch=HOW)
    assert (len(records), len(server.batches)) == (5, 1)


@pytest.mark.parametrize("act", [Act("lost"), Act("status", status=503), Act("status", status=429)])
def test_what_may_have_been_handed_in_is_looked_for_before_it_is_handed_in_again(tmp_path, act):
    def hands_in(number: int) -> Act:
        return act if number == 2 else Act()

    with BatchServer(hands_in=hands_in) as server:
        records, _ = ask(server.url, questions(30), tmp_path / "l.db", batch=HOW)
    assert len(records) == 30
    assert [made.file for made in server.batches] == ["file-0", "file-1"]
    assert server.tries == (2 if act.how == "lost" else 3)


@pytest.mark.parametrize(
    ("ends", "error", "said"),
    [
        ("failed", SlmopsError, "refuses the batch batch-0: line 1 is no request"),
        ("cancelled", SlmopsError, "batch-0 was cancelled"),
    ],
)
def test_a_batch_that_was_refused_or_cancelled_ends_the_run_and_the_next_goes_on(tmp_path, ends, error, said):
    with BatchServer(ends=lambda number: ends if number == 1 else "completed") as server:
        with pytest.raises(error, match=said):
            ask(server.url, questions(4), tmp_path / "l.db", batch=HOW)
        records, _ = ask(server.url, questions(4), tmp_path / "l.db", batch=HOW)
    assert len(records) == 4
    assert kept(tmp_path / "l.db", 4)[1].pico == 4 * 55_000_000
    assert len(server.batches) == (2 if ends == "failed" else 1)


def test_a_refused_key_or_model_is_bad_input_and_costs_nothing(tmp_path):
    with BatchServer(hands_in=lambda _n: Act("status", status=404)) as server, pytest.raises(BadInput, match="404"):
        ask(server.url, questions(4), tmp_path / "l.db", batch=HOW)
    with BatchServer(lambda _n, _t: Act("status", status=404)) as server, pytest.raises(BadInput, match="404"):
        ask(server.url, questions(4), tmp_path / "l.db", batch=HOW)
    assert kept(tmp_path / "l.db", 4)[1].pico == 0


def test_a_pilot_of_which_nothing_can_be_used_ends_it(tmp_path):
    with BatchServer(lambda _n, _t: Act(text="")) as server, pytest.raises(SlmopsError, match="none of the first 20"):
        ask(server.url, questions(500), tmp_path / "l.db", batch=HOW)
    assert server.asked.total() == 20


def test_a_server_that_charges_more_than_was_allowed_ends_a_budget(tmp_path):
    with BatchServer(lambda _n, text: Act(text=text, tokens=5000)) as server, pytest.raises(SlmopsError, match="5040"):
        ask(server.url, questions(30), tmp_path / "l.db", usd=1.0, batch=HOW)
    assert len(kept(tmp_path / "l.db", 30)[0]) == server.asked.total() == 20, "and what was paid is kept"


def test_every_line_passes_the_gate_before_it_is_uploaded(tmp_path):
    with BatchServer() as server:
        gate = Gate(tmp_path / EGRESS, "teacher", "host", "toy")
        ask(server.url, questions(3), tmp_path / "l.db", gate=gate, batch=HOW)
        told, damaged = read_log(tmp_path / EGRESS)
        assert ([line["bytes"] for line in told], damaged) == ([len(s) for s in server.uploads[0].splitlines(True)], 0)
        with pytest.raises(SlmopsError, match="nothing was sent"):
            ask(server.url, questions(3), tmp_path / "m.db", gate=Gate(tmp_path, "teacher", "host", "toy"), batch=HOW)
    assert len(server.uploads) == 1
    assert kept(tmp_path / "m.db", 3)[1].pico == 0


def ask_in_process(url: str, path: Path, usd: float | None) -> None:
    ask(url, questions(30), path, batch=HOW, usd=usd)


def killed(server: BatchServer, path: Path, when) -> None:
    """Start asking in a process of its own and kill it when the server has come so far."""
    process = PROCESSES.Process(target=ask_in_process, args=(server.url, path, 1.0))
    process.start()
    begun = time.monotonic()
    while not when():
        assert time.monotonic() < begun + 60
        time.sleep(0.002)
    process.kill()
    process.join()


def test_killed_between_handing_in_and_collecting(tmp_path):
    """With SIGKILL: while the first batch is under way, and while the answer to a second is awaited."""
    path = tmp_path / "l.db"
    with BatchServer(looks=10**9, hands_in=lambda number: Act("hang" if number == 2 else "answer")) as server:
        killed(server, path, lambda: server.batches and server.batches[0].looks < 10**9 - 2)
        most = sum(TARIFF.most(one.messages, MAX_TOKENS).pico for one in questions(20))
        assert kept(path, 30)[1].pico == most, "what is under way counts in full"
        server.batches[0].looks = 0
        server.looks = 1
        killed(server, path, lambda: len(server.batches) == 2)
        assert len(kept(path, 30)[0]) == 20
        records, aside = ask(server.url, questions(30), path, batch=HOW)
    assert (len(records), aside) == (30, {})
    assert [made.file for made in server.batches] == ["file-0", "file-1"], "nothing was handed in twice"
    assert server.tries == 2
    assert kept(path, 30)[1].pico == server.charged


def test_killed_before_the_file_is_known_hands_in_another(tmp_path):
    from slmops.endpoints.batches import Batches
    from slmops.endpoints.ledger import Ledger
    from slmops.recipe.teaching import Budget

    ledger = Ledger(tmp_path / "l.db", Budget())
    Batches(ledger).write({question.key: MOST for question in questions(3)})
    ledger.close()
    assert kept(tmp_path / "l.db", 3)[1].pico == 3 * MOST.pico
    with BatchServer() as server:
        records, _ = ask(server.url, questions(3), tmp_path / "l.db", batch=HOW)
    assert (len(records), kept(tmp_path / "l.db", 3)[1].pico) == (3, server.charged)


def test_ctrl_c_leaves_the_batch_running_and_one_by_one_does_not_buy_it_again(tmp_path):
    class Interrupting:
        def advance(self, _amount: float = 1, **figures: float) -> None:
            if figures.get("total"):
                raise KeyboardInterrupt

    with BatchServer(looks=3) as server:
        with pytest.raises(Interrupted, match="batch batch-0 goes on") as error:
            ask(server.url, questions(3), tmp_path / "l.db", batch=HOW, bar=Interrupting())
        assert (error.value.exit_code, error.value.hint) == (130, "the same command collects it")
        with pytest.raises(SlmopsError, match="under way in the batch batch-0"):
            ask(server.url, questions(3), tmp_path / "l.db")
        records, _ = ask(server.url, questions(3), tmp_path / "l.db", batch=HOW)
    assert (len(records), len(server.batches), server.asked.total()) == (3, 1, 3)


def test_progress_tells_what_the_provider_counts(tmp_path):
    told: list[dict[str, float]] = []

    class Watching:
        def advance(self, amount: float = 1, **figures: float) -> None:
            told.append({"amount": amount, **figures})

    with BatchServer(once("text 1", EXPIRED)) as server:
        ask(server.url, questions(3), tmp_path / "l.db", batch=HOW, bar=Watching())
    assert {"amount": 0, "completed": 2, "failed": 1, "total": 3} in told
    assert sum(one["amount"] for one in told) == 3


def test_a_changed_pool_collects_the_batch_of_the_older_one(tmp_path):
    with BatchServer(looks=10**9) as server:
        with pytest.raises(BudgetReached, match="minutes"):
            ask(server.url, questions(6), tmp_path / "l.db", batch=HOW, minutes=0.001)
        server.batches[0].looks = server.looks = 0
        records, _ = ask(server.url, questions(8)[4:], tmp_path / "l.db", batch=HOW)
    assert sorted(records) == ["k4", "k5", "k6", "k7"]
    assert len(kept(tmp_path / "l.db", 8)[0]) == 8
    assert set(server.asked.values()) == {1}
    assert kept(tmp_path / "l.db", 8)[1].pico == server.charged
    assert json.dumps(server.lines(1)).count("custom_id") == 2
