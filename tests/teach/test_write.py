"""How many rows of which label are written, and what must hold of them whatever the teacher says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from slmops.data.check import text_digest
from slmops.recipe.writing import Write
from slmops.tasks import Classification
from slmops.teach.asking import Request, Said, Useless
from slmops.teach.write import longest_bytes, wanted_rows, write_rows

LABELS = ("a", "b", "c")
TASK = Classification(LABELS, None, 8)


def rows(labels: Sequence[str]) -> list[dict[str, str]]:
    return [{"id": f"r{i}", "input": f"text {i} of {label}", "output": label} for i, label in enumerate(labels)]


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=30), st.integers(1, 60))
def test_balance_leaves_no_label_that_could_be_nearer_to_the_others(labels, wanted):
    train = rows(labels)
    dealt = wanted_rows(Write(rows=wanted, balance=True), train, TASK)
    before = Counter(labels)
    after = {label: count + dealt.get(label, 0) for label, count in before.items()}
    assert sum(dealt.values()) == wanted
    raised = [after[label] for label, count in dealt.items() if count]
    assert max(raised) - min(after.values()) <= 1, "nobody is given a row while another has fewer"
    assert all(after[label] == max(after.values()) for label in before if label not in dealt) or min(raised) >= min(
        after.values()
    )


class Script:
    """A teacher that says what was drawn."""

    def __init__(self, replies: Sequence[str | None]) -> None:
        self.replies, self.asked = list(replies), list[Request]()

    def ask(self, requests: Sequence[Request], title: str, useless: Useless) -> list[Said | None]:  # noqa: ARG002
        self.asked += requests
        said = [self.replies[n % len(self.replies)] for n in range(len(self.asked) - len(requests), len(self.asked))]
        return [None if text is None else Said(text, whole=True) for text in said]


REPLIES = st.one_of(
    st.none(), st.text(max_size=20), st.lists(st.text(max_size=30), max_size=6).map(lambda texts: json.dumps(texts))
)


@given(
    st.lists(REPLIES, min_size=1, max_size=8),
    st.lists(st.sampled_from(LABELS), min_size=2, max_size=9),
    st.integers(1, 12),
    st.sampled_from(["new", "harder"]),
    st.booleans(),
)
def test_whatever_is_said_rows_are_new_short_and_no_more_than_wanted(replies, labels, wanted, by, balance):
    train = rows(labels)
    known = {"train": train, "test": [{"id": "t", "input": "0"}], "pool": [{"id": "written-1", "input": "A  b"}]}
    settings = Write(rows=wanted, by=by, balance=balance, texts=2, rounds=3)
    script = Script(replies)
    out = write_rows(script, settings, TASK, train, known, seed=1)
    quotas = wanted_rows(settings, train, TASK)
    assert all(out.taken[label] <= quotas[label] for label in quotas)
    assert len(out.rows) == out.taken.total()
    digests = [text_digest(row["input"]) for side in known.values() for row in side]
    digests += [text_digest(row["input"]) for row in out.rows]
    assert len(set(digests)) == len(digests)
    assert all(row["input"].strip() for row in out.rows)
    assert all(len(row["input"].encode()) <= longest_bytes(settings, train) for row in out.rows)
    ids = [row["id"] for side in known.values() for row in side] + [row["id"] for row in out.rows]
    assert len(set(ids)) == len(ids)
    assert len(script.asked) <= 3 * sum(-(-count // 2) for count in quotas.values())
    assert len({json.dumps([request.messages, request.draw]) for request in script.asked}) == len(script.asked)
    again = Script(replies)
    assert write_rows(again, settings, TASK, train, known, seed=1) == out
    assert again.asked == script.asked
