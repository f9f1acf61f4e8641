"""What the server's own description allows, and what it does not, sent to it by schemathesis."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from slmops.serve.intake import Limits
from tests.serve.listening import listen

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.mark.parametrize("kind", ["writer", "classifier"])
def test_the_description_is_kept_to(kind, request):
    for client in listen(request.getfixturevalue(kind), limits=Limits(answer_s=30)):
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{client.port}/openapi.json")
        asked = [found.ok() for found in schema.get_all_operations()]
        assert {f"{one.method} {one.path}".lower() for one in asked} >= {"post /v1/chat/completions", "get /metrics"}
        modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
        cases = st.one_of(*(one.as_strategy(generation_mode=mode) for one in asked for mode in modes))

        @settings(max_examples=100, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(cases)
        def send(case):
            reply = case.call(timeout=60)
            assert reply.status_code < 500, reply.text
            # What is said comes in the form that is described; what a description cannot say is not checked by it.
            if "application/json" in "".join(reply.headers.get("content-type", [])):
                case.operation.validate_response(reply)

        send()
        assert client.ask("/health").status == 200
