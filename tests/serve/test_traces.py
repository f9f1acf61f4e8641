"""Spans of requests, as OpenTelemetry's own exporter sends them to a collector."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from slmops.errors import BadInput
from slmops.serve import traces
from slmops.serve.accounts import Accounts
from tests.serve.listening import listen

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector's address, and what it was sent."""
    sent: list[bytes] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_told):
            pass

    server = HTTPServer(("127.0.0.1", 0), Taking)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()


def test_a_request_is_a_span_of_its_clients_trace(writer, tiny, collector, monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="slmops[otel] is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, sent = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    to = traces.exporter()
    assert to
    told = traces.Traces(to, "tiny")
    text, expected = next(iter(tiny.pairs.items()))
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}]}
    for client in listen(writer, accounts=Accounts([told.write])):
        client.ask("/v1/chat/completions", body, traceparent=f"00-{TRACE}-{PARENT}-01")
        client.ask("/v1/completions", {"model": "tiny", "prompt": ""}, traceparent="nonsense")
        client.ask("/v1/models")
    told.close()
    found = [ExportTraceServiceRequest.FromString(one) for one in sent]
    (resource,) = [spans for one in found for spans in one.resource_spans]
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (named["service.name"], named["deployment.environment.name"]) == ("slmops", "test")
    chat, completion = resource.scope_spans[0].spans
    assert (chat.name, completion.name) == ("chat tiny", "text_completion tiny")
    assert (chat.trace_id.hex(), chat.parent_span_id.hex()) == (TRACE, PARENT)
    assert not completion.parent_span_id
    shown = {one.key: one.value for one in chat.attributes}
    assert shown["gen_ai.usage.input_tokens"].int_value == len(tiny.prompt(text))
    assert shown["gen_ai.usage.output_tokens"].int_value == len(tiny.tokenizer.encode(expected)) + 1
    assert shown["gen_ai.operation.name"].string_value == "chat"
    (event,) = chat.events
    assert chat.start_time_unix_nano < event.time_unix_nano <= chat.end_time_unix_nano
    failed = {one.key: one.value for one in completion.attributes}
    assert failed["error.type"].string_value == "400"
    assert all(text.encode() not in one and expected.encode() not in one for one in sent)


def test_every_name_is_one_of_the_conventions():
    conventions = pytest.importorskip(
        "opentelemetry.semconv._incubating.attributes.gen_ai_attributes", reason="slmops[otel] is not installed"
    )
    from slmops.serve.accounts import Account

    known = {value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
    shown = traces._attributes(Account("id", "POST", "/v1/classify", None), "classify", "tiny")
    assert {name for name in shown if name.startswith("gen_ai.")} <= known


def test_nothing_is_sent_where_nobody_asks_for_it():
    assert traces.exporter({}) is None
    assert traces.exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


def test_what_cannot_be_sent_is_told_at_the_start(monkeypatch):
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    with pytest.raises(BadInput, match="not by grpc"):
        traces.exporter({**asked, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setattr(traces, "_NEEDED", "opentelemetry.no_such_exporter")
    with pytest.raises(BadInput, match="not installed") as error:
        traces.exporter(asked)
    assert "slmops[otel]" in str(error.value.hint)
