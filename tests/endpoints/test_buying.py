"""Asking an endpoint until every question is decided, whatever it does, and never above the budget."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmops.endpoints.money import PICO, Tariff
from slmops.errors import BadInput, BudgetReached, SlmopsError
from tests.endpoints.questions import MAX_TOKENS, PRICE, ask, kept, questions
from tests.endpoints.teacher_server import Act, TeacherServer, echo

MOST = Tariff.of(PRICE).most(questions(1)[0].messages, MAX_TOKENS)


def nth(acts: dict[int, Act]):
    """The act of each numbered request; others are answered."""
    return lambda number, text: acts.get(number, Act(text=text.upper()))


def test_every_question_is_answered_once(tmp_path):
    with TeacherServer(delay_s=0.01) as server:
        records, aside = ask(server.url, questions(20), tmp_path / "l.db", key="secret")
        again, _ = ask(server.url, questions(20), tmp_path / "l.db")
    assert {key: record["text"] for key, record in records.items()} == {f"k{i}": f"TEXT {i}" for i in range(20)}
    assert again == records
    assert aside == {}
    assert set(server.asked.values()) == {1}
    assert server.most_at_once == 4
    assert kept(tmp_path / "l.db", 20)[1].pico == server.charged
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_the_first_is_asked_alone_so_a_wrong_key_costs_one_request(tmp_path):
    with TeacherServer(lambda _n, _t: Act("status", status=401)) as server, pytest.raises(BadInput, match="401"):
        ask(server.url, questions(20), tmp_path / "l.db")
    assert server.asked.total() == 1


@pytest.mark.parametrize(
    "act",
    [
        Act("status", status=429),
        Act("status", status=429, headers=(("Retry-After", "0"),)),
        Act("status", status=500),
        Act("status", status=503),
        Act("reset"),
        Act("lost"),
        Act("half"),
        Act("garbage"),
    ],
)
def test_passing_trouble_is_tried_again(tmp_path, act):
    with TeacherServer(nth({2: act, 3: act, 5: act})) as server:
        records, aside = ask(server.url, questions(8), tmp_path / "l.db")
    assert len(records) == 8
    assert aside == {}
    assert server.asked.total() == 11


def test_a_server_that_hangs_is_given_up_and_counted_in_full(tmp_path):
    with TeacherServer(nth({3: Act("hang")})) as server:
        records, _ = ask(server.url, questions(4), tmp_path / "l.db", timeout_s=0.3)
    assert len(records) == 4
    spent = kept(tmp_path / "l.db", 4)[1]
    assert spent.pico == server.charged * 4 // 5 + MOST.pico, "what it may have charged is unknown, so all of it counts"


def test_the_same_key_goes_with_a_try_whose_end_is_unknown_and_another_after_nonsense(tmp_path):
    with TeacherServer(nth({1: Act("lost"), 2: Act("garbage")})) as server:
        ask(server.url, questions(1), tmp_path / "l.db")
    first, second, third = (headers["Idempotency-Key"] for headers in server.headers)
    assert first == second != third


def test_a_server_that_remembers_charges_a_lost_answer_once(tmp_path):
    with TeacherServer(nth({1: Act("lost")}), idempotent=True) as server:
        ask(server.url, questions(1), tmp_path / "l.db")
    assert (server.asked.total(), server.charged_requests) == (2, 1)


def test_retry_after_is_heeded(tmp_path):
    from slmops.endpoints import retry

    retry.LONGEST_PAUSE_S = 5.0  # given back by the fixture
    busy = Act("status", status=429, headers=(("Retry-After", "0.3"),))
    with TeacherServer(nth({1: busy})) as server:
        begun = time.monotonic()
        ask(server.url, questions(1), tmp_path / "l.db")
        assert time.monotonic() - begun >= 0.3
    assert server.asked.total() == 2


def test_too_many_requests_never_cost_a_row(tmp_path):
    """Three of four requests are refused; no row is set aside, however often its turn does not come."""
    with TeacherServer(lambda n, t: Act(text=t) if n % 4 == 1 else Act("status", status=429)) as server:
        records, aside = ask(server.url, questions(30), tmp_path / "l.db", concurrency=8, retries=6)
    assert (len(records), aside) == (30, {})


def test_poison_is_set_aside_with_its_reason(tmp_path):
    def behave(_number, text):
        statuses = {"text 3": 400, "text 5": 500}
        return Act("status", status=statuses[text]) if text in statuses else Act(text=text)

    with TeacherServer(behave, delay_s=0.002) as server:
        records, aside = ask(server.url, questions(40), tmp_path / "l.db")
    assert len(records) == 38
    assert {key: reason.partition(" answers ")[2] for key, reason in aside.items()} == {
        "k3": "400: as told",
        "k5": "500: as told",
    }
    assert server.asked["text 3"] == 1, "a request that is refused is not sent again"
    assert server.asked["text 5"] == 4


def test_a_dead_endpoint_is_not_asked_all_rows(tmp_path):
    def dies(number, text):
        return Act(text=text) if number <= 10 else Act("status", status=500)

    with TeacherServer(dies) as server, pytest.raises(SlmopsError, match="answers 500") as error:
        ask(server.url, questions(200), tmp_path / "l.db")
    assert server.asked.total() <= 10 + 4 * (4 + 3 + 4), "of so many rows were all tries used up"
    assert "goes on" in (error.value.hint or "")
    assert len(kept(tmp_path / "l.db", 200)[0]) == 10


def test_nobody_there(tmp_path):
    with pytest.raises(SlmopsError, match="does not answer: ClientConnectorError"):
        ask("http://127.0.0.1:9/v1", questions(5), tmp_path / "l.db", retries=1)
    assert kept(tmp_path / "l.db", 5)[1].pico == 0, "what never left costs nothing"


def test_it_stops_when_no_answer_can_be_used_and_buys_no_more(tmp_path):
    with TeacherServer(lambda _n, _t: Act(text="As a large language model …")) as server:
        for _ in range(2):
            with pytest.raises(SlmopsError, match="none of the first 5 answers can be used") as error:
                ask(server.url, questions(200), tmp_path / "l.db", usable=lambda _: "no JSON", unusable=5)
    assert "'As a large language model …': no JSON" in str(error.value)
    assert server.asked.total() <= 2 * (5 + 4)


def test_it_stops_when_every_request_is_refused(tmp_path):
    with TeacherServer(lambda _n, _t: Act("status", status=400)) as server, pytest.raises(SlmopsError) as error:
        ask(server.url, questions(200), tmp_path / "l.db", unusable=5)
    assert "none of the first 5 answers can be used; such as\n  toy at 127.0.0.1" in str(error.value)
    assert server.asked.total() <= 5 + 4


def test_the_budget_is_never_exceeded_and_a_larger_one_goes_on(tmp_path):
    """The cap allows 12 answers and a bit; each costs 110 millionths of a dollar, and may cost 1,110."""
    one = Fraction(40 * 2 + 3 * 10, 10**6)
    cap = float(one * 12 + Fraction(MOST.pico, PICO))
    with TeacherServer(delay_s=0.005) as server:
        with pytest.raises(BudgetReached, match=r"teach\.budget\.usd") as error:
            ask(server.url, questions(40), tmp_path / "l.db", usd=cap, concurrency=8)
        assert error.value.exit_code == 4
        assert 12 <= server.charged_requests <= 13
        assert server.charged <= cap * PICO
        records, _ = ask(server.url, questions(40), tmp_path / "l.db", usd=1.0, concurrency=8)
    assert len(records) == 40
    assert set(server.asked.values()) == {1}, "nothing was bought twice"


@pytest.mark.parametrize(("cap", "value", "most"), [("requests", 7, 7), ("tokens", 2000, 35)])
def test_caps_of_requests_and_tokens(tmp_path, cap, value, most):
    with TeacherServer() as server, pytest.raises(BudgetReached, match=f"{cap} {value}"):
        ask(server.url, questions(60), tmp_path / "l.db", **{cap: value})
    assert 0 < server.charged_requests <= most
    assert len(kept(tmp_path / "l.db", 60)[0]) == server.charged_requests


def test_the_cap_of_minutes(tmp_path):
    with TeacherServer(delay_s=0.02) as server, pytest.raises(BudgetReached, match=r"minutes 0\.01 are over"):
        ask(server.url, questions(10_000), tmp_path / "l.db", minutes=0.01)
    assert len(kept(tmp_path / "l.db", 10_000)[0]) == server.charged_requests > 0


def test_a_server_that_does_not_count_is_counted_in_full(tmp_path):
    with TeacherServer(lambda _n, text: Act(text=text, usage=False)) as server:
        ask(server.url, questions(3), tmp_path / "l.db")
    assert kept(tmp_path / "l.db", 3)[1].pico == 3 * MOST.pico


def test_a_server_that_charges_more_than_was_allowed_ends_a_budget(tmp_path):
    with (
        TeacherServer(lambda _n, text: Act(text=text, tokens=5000)) as server,
        pytest.raises(SlmopsError, match=r"5040 tokens .* no budget can be kept"),
    ):
        ask(server.url, questions(60), tmp_path / "l.db", usd=1.0)
    assert server.asked.total() == 1


ACTS = st.sampled_from(
    [
        *[Act()] * 6,
        Act("status", status=429),
        Act("status", status=429, headers=(("Retry-After", "0.01"),)),
        Act("status", status=400),
        Act("status", status=500),
        Act("status", status=502),
        Act("reset"),
        Act("lost"),
        Act("half"),
        Act("garbage"),
        Act(text=""),
        Act(finish="length", tokens=MAX_TOKENS),
        Act(usage=False),
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACTS, min_size=1, max_size=40), cents=st.integers(1, 4), concurrency=st.integers(1, 8))
def test_whatever_happens_every_row_has_one_end_and_the_cap_holds(tmp_path_factory, acts, cents, concurrency):
    """The acts come again and again; a run that ends early goes on with the next, as the same command would."""
    rows, cap, path = 12, cents / 100, tmp_path_factory.mktemp("p") / "l.db"
    with TeacherServer(lambda number, _: acts[(number - 1) % len(acts)]) as server:
        bought: dict[str, int] = {}
        for _ in range(4):
            before = {key: server.asked[f"text {key[1:]}"] for key in kept(path, rows)[0]}
            try:
                records, aside = ask(server.url, questions(rows), path, usd=cap, concurrency=concurrency)
            except BudgetReached:
                aside, ended = {}, False
            except SlmopsError:
                aside, ended = {}, False
            else:
                ended = True
                assert records.keys() | aside.keys() == {f"k{i}" for i in range(rows)}
                assert not records.keys() & aside.keys()
                assert all(aside.values())
            records, spent = kept(path, rows)
            assert server.charged <= spent.pico <= cap * PICO
            assert all(server.asked[f"text {key[1:]}"] == times for key, times in before.items())
            assert bought.items() <= {key: server.asked[f"text {key[1:]}"] for key in records}.items()
            bought = {key: server.asked[f"text {key[1:]}"] for key in records}
            if ended:
                break


def test_echo_is_what_the_others_assume():
    assert echo(1, "a") == Act(text="A")
