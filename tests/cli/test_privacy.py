"""`slmops privacy show` and `log`: a person can see before and after, on a screen of 80 columns."""

from __future__ import annotations

import json

import pytest

from slmops.privacy.audit import EGRESS, Gate
from tests.privacy.canaries import CANARIES

RECIPE = """
name: a
task: {{kind: classification}}
data: {{train: train.jsonl, pool: pool.jsonl, test: test.jsonl}}
teachers: [{{name: big, kind: endpoint, base_url: "{url}", model: big-1}}]
student: {{model: "wheel:none"}}
privacy: {{patterns: {{customer: "C-[0-9]+"}}}}
"""


@pytest.fixture
def project(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").touch()
    rows = [*({"id": kind, "input": f"{value} for C-77, " + "long " * 30} for kind, value in CANARIES.items())]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(url="https://api.example.com/v1"))
    return tmp_path


def test_show_says_what_would_be_replaced(slmops, project):
    done = slmops("privacy", "show", "recipe.yaml", "--rows", "3")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("email: [EMAIL_1] for [CUSTOMER_1], long")
    assert [line.split() for line in lines[1:3]] == [["[EMAIL_1]", CANARIES["email"]], ["[CUSTOMER_1]", "C-77"]]
    assert lines[-2] == "3 rows, 6 values taken out: 3 customer, 1 email, 1 iban, 1 phone"
    assert lines[-1] == "teacher big at https://api.example.com/v1: sees placeholders"


def test_show_as_json(slmops, project):
    told = json.loads(slmops("privacy", "show", "recipe.yaml", "--json").stdout)
    assert told["endpoints"] == [{"who": "teacher big", "base_url": "https://api.example.com/v1", "local": False}]
    assert told["counts"] == {"customer": 8, **dict.fromkeys(sorted(CANARIES), 1)}
    assert {row["id"] for row in told["rows"]} == set(CANARIES)
    assert told["rows"][0]["values"] == {"[CUSTOMER_1]": "C-77", "[EMAIL_1]": CANARIES["email"]}


def test_show_names_whoever_plays_the_user(slmops, project):
    guest = "{kind: endpoint, name: guest, base_url: 'https://guest.example/v1', model: g}"
    talks = "teach.converse={rows: 1, personas: [a driver], user: " + guest + "}"
    done = slmops("privacy", "show", "recipe.yaml", "--set", "task={kind: conversation}", "--set", talks)
    assert done.stdout.splitlines()[-1] == "user guest at https://guest.example/v1: sees placeholders"


def test_show_says_that_this_machine_sees_all(slmops, project):
    local = "teachers.0.base_url=http://localhost:8000/v1"
    assert "this machine, sees rows as they are" in slmops("privacy", "show", "recipe.yaml", "--set", local).stdout
    off = slmops("privacy", "show", "recipe.yaml", "--set", "privacy.redact=[]", "--set", "privacy.patterns={}").stdout
    assert "8 rows, 0 values taken out" in off


def test_local_only_is_refused_before_anything_runs(slmops, project):
    done = slmops("run", "recipe.yaml", "--set", "privacy.egress=local-only")
    assert done.returncode == 2
    assert "the teacher `big` is at api.example.com, and `privacy.egress: local-only` lets no text leave" in done.stderr


def test_log_shows_what_left(slmops, tmp_path):
    kept = tmp_path / ".slmops" / "kept"
    nothing = slmops("privacy", "log")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing has left this machine" in nothing.stderr
    kept.mkdir(parents=True)
    gate = Gate(kept / EGRESS, "teacher with-a-very-long-name", "a-very-long-name.of.api.example.com:8443", "m" * 80)
    for number in range(30):
        said = "".join(f"[{kind.upper()}_1] [{kind.upper()}_2]" for kind in CANARIES)
        gate.leaving(b"x" * number, [{"role": "user", "content": said}])
    lines = slmops("privacy", "log", "--rows", "5").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 6
    assert lines[-1].startswith("30 requests, 480 values taken out: 60 card, 60 email")
    told = json.loads(slmops("privacy", "log", "--rows", "2", "--json").stdout)
    assert (told["in_all"], told["damaged"], len(told["requests"])) == (30, 0, 2)
    assert len(told["requests"][0]["digest"]) == 64
    with (kept / EGRESS).open("ab") as log:
        log.write(b"half a li")
    assert "1 lines of" in slmops("privacy", "log").stderr
