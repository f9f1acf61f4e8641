"""What a server counts, for Prometheus: OpenTelemetry's names for generative models, and `slmops_*` for the scheduler.

No label holds anything that a client can choose. Buckets are those that the conventions advise.
Source: OpenTelemetry, Semantic conventions for generative AI metrics.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from slmops.serve.job import Ended
from slmops.serve.scheduler import Ticket

CONTENT_TYPE = CONTENT_TYPE_LATEST

_DURATION_S = [0.01 * 2**n for n in range(14)]
_FIRST_S = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_TOKEN_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
_TOKENS = [4**n for n in range(14)]

_MODEL = "gen_ai_request_model"


class Metrics:
    """The figures of one server; see `slmops.serve.scheduler.Observer`."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        named = [_MODEL]

        def histogram(name: str, told: str, buckets: list[float], *more: str) -> Histogram:
            return Histogram(name, told, [*named, *more], buckets=buckets, registry=self.registry)

        self._duration = histogram(
            "gen_ai_server_request_duration_seconds", "From a request's coming to its end.", _DURATION_S, "error_type"
        )
        self._first = histogram("gen_ai_server_time_to_first_token_seconds", "From coming to a first token.", _FIRST_S)
        self._each = histogram("gen_ai_server_time_per_output_token_seconds", "After the first, each.", _TOKEN_S)
        self._usage = histogram("gen_ai_client_token_usage", "Tokens.", list(map(float, _TOKENS)), "gen_ai_token_type")
        self._known = Counter(
            "slmops_prompt_tokens_known_total", "Prompt tokens taken from the cache.", registry=self.registry
        )
        self._refused = Counter("slmops_refused_total", "Requests not taken.", ["why"], registry=self.registry)
        self._waiting = Gauge("slmops_queue_depth", "Requests that wait for a slot.", registry=self.registry)
        self._running = Gauge("slmops_running", "Requests in the batch.", registry=self.registry)
        self._adapters = Gauge("slmops_adapters", "Adapters in memory.", registry=self.registry)
        self._loads = Counter("slmops_adapter_loads_total", "Adapters loaded.", registry=self.registry)
        self._held = Gauge("slmops_cache_tokens", "Tokens of running requests in the cache.", registry=self.registry)

    def ended(self, ticket: Ticket, ended: Ended) -> None:
        """See `Observer.ended`."""
        # An adapter's name is the bundle's own, and no client's.
        model = f"{self._model}:{ticket.worn.name}" if ticket.worn else self._model
        named, times, job = (model,), ticket.times, ticket.job
        now = times.ended or times.came
        error = "" if ended in ("stop", "length") else ended
        self._duration.labels(*named, error).observe(now - times.came)
        self._usage.labels(*named, "input").observe(len(job.prompt))
        self._usage.labels(*named, "output").observe(job.written)
        self._known.inc(ticket.known)
        if times.first is not None:
            self._first.labels(*named).observe(times.first - times.came)
            if job.written > 1:
                self._each.labels(*named).observe((now - times.first) / (job.written - 1))

    def stepped(self, *, waiting: int, running: int, held: int) -> None:
        """See `Observer.stepped`."""
        self._waiting.set(waiting)
        self._running.set(running)
        self._held.set(held)

    def adapters(self, resident: int, *, loaded: bool = False) -> None:
        """So many adapters are in memory now; `loaded` counts one that was read."""
        self._adapters.set(resident)
        self._loads.inc(loaded)

    def refused(self, why: str) -> None:
        """A request was not taken; `why` is one of a few words of ours."""
        self._refused.labels(why).inc()

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
