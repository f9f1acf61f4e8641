"""The log of what left: one line a request, whoever writes at once, and never what was said."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from slmops.errors import BadInput, SlmopsError
from slmops.privacy.audit import EGRESS, Gate, gate_for, read_log
from slmops.recipe.privacy import PrivacySettings, is_loopback

URL = "https://api.example.com:8443/v1"


def test_a_line_says_when_to_whom_and_how_much(tmp_path):
    gate = gate_for(URL, "big-1", "teacher big", PrivacySettings(), tmp_path / "kept")
    said = [
        {"role": "user", "content": "[EMAIL_1] and [EMAIL_1], [EMAIL_2], [PHONE_1]"},
        {"role": "user", "content": ""},
    ]
    gate.leaving(b"body", said)
    ((line,), damaged) = read_log(tmp_path / "kept" / EGRESS)
    assert damaged == 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "who": "teacher big",
        "host": "api.example.com:8443",
        "model": "big-1",
        "digest": hashlib.sha256(b"body").hexdigest(),
        "bytes": 4,
        "redacted": {"email": 2, "phone": 1},
    }
    assert (tmp_path / "kept" / EGRESS).stat().st_mode & 0o077 == 0


def test_lines_of_many_writers_do_not_mix(tmp_path):
    gates = [Gate(tmp_path / EGRESS, "w" * 500, "h", f"m{i}") for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda gate: [gate.leaving(b"x", []) for _ in range(50)], gates))
    found, damaged = read_log(tmp_path / EGRESS)
    assert (len(found), damaged) == (400, 0)


def test_half_a_line_hides_no_other(tmp_path):
    log = tmp_path / EGRESS
    gate = Gate(log, "a", "h", "m")
    gate.leaving(b"x", [])
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:30])
    found, damaged = read_log(log)
    assert (len(found), damaged) == (1, 1)
    gate.leaving(b"x", [])
    assert log.read_bytes().startswith(whole), "nothing that stands there is changed"
    found, damaged = read_log(log)
    assert (len(found), damaged) == (2, 1)


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(SlmopsError, match="so nothing was sent"):
        Gate(tmp_path, "a", "h", "m").leaving(b"x", [])


def test_no_log_is_an_empty_one(tmp_path):
    assert read_log(tmp_path / EGRESS) == ([], 0)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://localhost/v1", True),
        ("http://LOCALHOST:1/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://localhost.example.com/v1", False),
        ("http://0.0.0.0:8000/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://127.1/v1", False),
        (URL, False),
    ],
)
def test_what_is_on_this_machine(url, local):
    assert is_loopback(url) == local
    settings = PrivacySettings(egress="local-only")
    if local:
        assert gate_for(url, "m", "judge", settings, os.devnull) is None
    else:
        with pytest.raises(BadInput, match=r"judge is at .*, and privacy.egress: local-only lets no text leave"):
            gate_for(url, "m", "judge", settings, os.devnull)


def test_a_gateway_on_this_machine_can_be_told_to_be_another(tmp_path):
    settings = PrivacySettings(loopback="remote")
    assert gate_for("http://127.0.0.1/v1", "m", "judge", settings, tmp_path) is not None
    with pytest.raises(BadInput):
        gate_for("http://127.0.0.1/v1", "m", "judge", settings.model_copy(update={"egress": "local-only"}), tmp_path)


def test_the_log_never_holds_a_text(tmp_path):
    gate_for(URL, "m", "judge", PrivacySettings(redact=[]), tmp_path).leaving(
        json.dumps({"messages": "zora@canary.example"}).encode(), [{"role": "user", "content": "zora@canary.example"}]
    )
    assert b"zora" not in (tmp_path / EGRESS).read_bytes()
