"""Traces: a span for each request to the model, where OpenTelemetry is told where to send them.

Names are those of the semantic conventions for generative AI spans and for HTTP servers.
Source: OpenTelemetry, Semantic conventions 1.38. What is asked and answered is in none of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from slmops.errors import BadInput
from slmops.serve.accounts import Account

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_NEEDED = "opentelemetry.exporter.otlp.proto.http"

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/classify": "classify",
}
"""What is asked of the model, by the conventions' names where they have one."""


def exporter(environment: Mapping[str, str] = os.environ) -> SpanExporter | None:
    """What sends spans where `OTEL_EXPORTER_OTLP_ENDPOINT` says; None where nothing says so.

    Raises:
        BadInput: its packages are not installed, or another protocol is asked for.
    """
    if not any(environment.get(name) for name in _ENDPOINTS):
        return None
    asked = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if asked != _PROTOCOL:
        raise BadInput(f"traces are sent by {_PROTOCOL}, not by {asked}", hint=f"set {_PROTOCOLS[1]}={_PROTOCOL}")
    if not _installed():
        said = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed"
        raise BadInput(said, hint="pip install 'slmops[otel]', or unset it")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _installed() -> bool:
    try:
        return find_spec(_NEEDED) is not None
    except ModuleNotFoundError:
        return False


class Traces:
    """Makes the spans of requests. They are sent in a thread of their own, and lost where nobody takes them."""

    def __init__(self, to: SpanExporter, model: str) -> None:
        """`model` is what is asked."""
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = Resource({SERVICE_NAME: "slmops"}).merge(OTELResourceDetector().detect())
        self._provider, self._model = TracerProvider(resource=named, shutdown_on_exit=False), model
        self._provider.add_span_processor(BatchSpanProcessor(to))
        self._tracer = self._provider.get_tracer("slmops.serve")

    def write(self, account: Account) -> None:
        """Make the span of a request that is over, in the trace that its client told."""
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if account.route not in _OPERATIONS:
            return
        told = {"traceparent": account.traceparent} if account.traceparent else {}
        name, model = _OPERATIONS[account.route], ":".join(filter(None, (self._model, account.adapter)))
        span = self._tracer.start_span(
            f"{name} {model}",
            context=TraceContextTextMapPropagator().extract(told),
            kind=SpanKind.SERVER,
            attributes=_attributes(account, name, model),
            start_time=account.came_ns,
        )
        if (first := account.first_token_s) is not None:
            span.add_event("first token", timestamp=account.came_ns + int(first * 1e9))
        if account.error or account.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(account.came_ns + int(account.took_s * 1e9))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(account: Account, operation: str, model: str) -> dict[str, Any]:
    read, known, written = account.tokens
    error = account.error or (str(account.status) if account.status >= 400 else None)
    told = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "slmops",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": read,
        "gen_ai.usage.cache_read.input_tokens": known,
        "gen_ai.usage.output_tokens": written,
        "gen_ai.response.time_to_first_chunk": account.first_token_s,
        "http.request.method": account.method,
        "http.route": account.route,
        "http.response.status_code": account.status,
        "error.type": error,
        "slmops.request.id": account.id,
    }
    return {name: value for name, value in told.items() if value is not None}
