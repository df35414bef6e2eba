"""Prometheus metrics of one application. Each application has its own registry, so that tests can run several.

Label values come from fixed sets (outcomes, codes, steps, route templates, source keys), never from clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_FLUSH_MESSAGES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


Step = Literal["normalise", "check_plan", "append", "record_conflicts", "queue_erasures", "project", "defer"]
"""The steps of ingestion, in order (:mod:`app.ingest.submit`); a flush projects its messages or defers them."""


class _StepTimer:
    """Context manager that observes the duration of its body; ``contextlib.contextmanager`` costs twice as much."""

    __slots__ = ("_histogram", "_started_at")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._started_at = time.perf_counter()

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self._histogram.observe(time.perf_counter() - self._started_at)


class Metrics:
    """All metrics of one application."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._create_flush_metrics(self._registry)
        self._create_worker_metrics(self._registry)
        self._create_connection_metrics(self._registry)
        self._create_source_metrics(self._registry)
        self.accepted = 0
        """Messages accepted by this process so far."""
        self._children: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}
        self._step_histograms: dict[str, Histogram] = {}

    def _create_flush_metrics(self, registry: CollectorRegistry) -> None:
        self._messages = Counter("segue_messages", "Messages by outcome.", ["outcome"], registry=registry)
        self._rejections = Counter("segue_rejections", "Rejected messages by code.", ["code"], registry=registry)
        self._flush = Histogram(
            "segue_flush_messages", "Messages in one flush.", buckets=_FLUSH_MESSAGES, registry=registry
        )
        self._steps = Histogram(
            "segue_step_seconds", "Duration of one step of a flush.", ["step"], buckets=_STEP_SECONDS, registry=registry
        )
        self._queue_bytes = Gauge("segue_queue_bytes", "Bytes of messages waiting for a flush.", registry=registry)
        self._queue_requests = Gauge("segue_queue_requests", "Requests waiting for a flush.", registry=registry)

    def _create_worker_metrics(self, registry: CollectorRegistry) -> None:
        self._sweep_lag = Gauge(
            "segue_sweep_lag_seconds", "Age of the oldest due change that is not yet stored.", registry=registry
        )
        self._deferred = Gauge("segue_deferred_messages", "Messages stored but not yet projected.", registry=registry)
        self._fills = Gauge(
            "segue_fills_pending", "Customers not yet computed for the current definitions.", registry=registry
        )
        self._due = Gauge(
            "segue_sweep_due_customers", "Customers whose next change is due (counted up to 10,000).", registry=registry
        )
        self._fill_customers = Counter(
            "segue_fill_customers", "Customers backfilled to new definitions.", registry=registry
        )
        self._fill_touchpoints = Counter("segue_fill_touchpoints", "Touchpoints read by backfills.", registry=registry)
        self._fill_eta = Gauge(
            "segue_fill_eta_seconds", "Estimated remaining time of the running backfill.", registry=registry
        )

    def _create_connection_metrics(self, registry: CollectorRegistry) -> None:
        self._pool_used = Gauge("segue_pool_connections_used", "Database connections in use.", registry=registry)
        self._pool_size = Gauge("segue_pool_connections_open", "Open database connections.", registry=registry)
        self._streams = Gauge("segue_streams_open", "Open streams of /v1/me.", registry=registry)
        self._connections = Gauge("segue_connections_open", "Open connections of clients.", registry=registry)
        self._unfinished_bytes = Gauge(
            "segue_unfinished_bytes", "Memory of requests that have not arrived completely.", registry=registry
        )
        self._unread_bytes = Gauge(
            "segue_unread_bytes", "Bytes of responses that clients have not read.", registry=registry
        )
        self._clients_refused = Counter(
            "segue_clients_refused",
            "Connections and incomplete requests that were refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self._loop_lag = Histogram(
            "segue_loop_lag_seconds",
            "Time for which the event loop was held by other work, measured every 50 milliseconds.",
            buckets=_STEP_SECONDS,
            registry=registry,
        )
        self._background_running = Gauge(
            "segue_background_running", "Whether the background process of this server runs: 1 or 0.", registry=registry
        )
        self._background_restarts = Gauge(
            "segue_background_restarts", "Restarts of the background process of this server.", registry=registry
        )
        self._requests = Counter(
            "segue_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "segue_request_seconds",
            "Time from the request to the end of the response.",
            ["route"],
            buckets=_STEP_SECONDS,
            registry=registry,
        )

    def _create_source_metrics(self, registry: CollectorRegistry) -> None:
        self._webhooks_refused = Counter(
            "segue_webhooks_refused",
            "Webhooks with a missing, wrong, stale or replayed signature.",
            ["kind", "reason"],
            registry=registry,
        )
        self._source_outcomes = Counter(
            "segue_source_outcomes",
            "Messages of a source by outcome; the outcome refused counts webhooks.",
            ["source", "outcome"],
            registry=registry,
        )
        self._source_seen = Gauge(
            "segue_source_last_seen_seconds",
            "Time of the last request from a source in this process, in seconds since 1970.",
            ["source"],
            registry=registry,
        )
        self._plan_violations = Counter(
            "segue_plan_violations", "Messages that violate the tracking plan.", ["mode"], registry=registry
        )
        self._contacts_unusable = Counter(
            "segue_contacts_unusable",
            "Email addresses and phone numbers that cannot be used as identities.",
            ["kind", "reason"],
            registry=registry,
        )

    def count_outcome(self, name: str, n: int) -> None:
        """Count messages by outcome: accepted, duplicate or rejected."""
        if name == "accepted":
            self.accepted += n
        if n:
            self._messages.labels(name).inc(n)

    def count_rejections(self, code: str, times: int) -> None:
        self._rejections.labels(code).inc(times)

    def count_refused_webhook(self, kind: str, reason: str) -> None:
        """Count a refused webhook; ``reason`` is missing, wrong, stale or replayed."""
        self._webhooks_refused.labels(kind, reason).inc()

    def count_source_outcome(self, source: str, outcome: str, times: int, now: int) -> None:
        """Count messages of a source; ``now`` is in microseconds since the epoch.

        ``outcome`` is accepted, duplicate, rejected, warned, refused or ignored.
        """
        key = ("source", f"{source}:{outcome}", 0)
        counter = self._children.get(key)
        if counter is None:
            counter = self._children[key] = self._source_outcomes.labels(source, outcome)
        counter.inc(times)
        self._source_seen.labels(source).set(now / 1_000_000)

    def count_plan_violation(self, mode: str) -> None:
        """Count a message that violates the tracking plan; ``mode`` is warn or quarantine."""
        self._plan_violations.labels(mode).inc()

    def count_unusable_contact(self, kind: str, reason: str) -> None:
        """Count an unusable contact; ``kind`` is email or phone, ``reason`` is from :mod:`app.formats.email_phone`."""
        self._contacts_unusable.labels(kind, reason).inc()

    def observe_flush(self, messages: int) -> None:
        self._flush.observe(messages)

    def time_step(self, name: Step) -> _StepTimer:
        """Time one step of ingestion, as a context manager; a step that fails is not counted."""
        histogram = self._step_histograms.get(name)
        if histogram is None:
            histogram = self._step_histograms[name] = self._steps.labels(name)
        return _StepTimer(histogram)

    def set_queue(self, bytes: int, requests: int) -> None:
        self._queue_bytes.set(bytes)
        self._queue_requests.set(requests)

    def set_sweep_lag(self, seconds: float) -> None:
        self._sweep_lag.set(seconds)

    def set_deferred(self, messages: int) -> None:
        """Set the number of messages in the log that are not projected yet."""
        self._deferred.set(messages)

    def set_due(self, customers: int) -> None:
        self._due.set(customers)

    def count_filled(self, customers: int, touchpoints: int) -> None:
        self._fill_customers.inc(customers)
        self._fill_touchpoints.inc(touchpoints)

    def set_fill_eta(self, seconds: float) -> None:
        self._fill_eta.set(seconds)

    def set_fills_pending(self, customers: int) -> None:
        self._fills.set(customers)

    def watch_pool(self, used: Callable[[], int], size: Callable[[], int]) -> None:
        """Register functions that return the used and open connections; they are called at each scrape."""
        self._pool_used.set_function(used)
        self._pool_size.set_function(size)

    def watch_background(self, is_running: Callable[[], bool], restarts: Callable[[], int]) -> None:
        """Register functions that describe the background process; they are called at each scrape."""
        self._background_running.set_function(is_running)
        self._background_restarts.set_function(restarts)

    def observe_loop_lag(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    def watch_streams(self, open: Callable[[], int]) -> None:
        """Register a function that returns the number of open streams; it is called at each scrape."""
        self._streams.set_function(open)

    def watch_connections(
        self, open: Callable[[], int], unfinished_bytes: Callable[[], int], unread_bytes: Callable[[], int]
    ) -> None:
        """Register functions that return the open connections and their memory; they are called at each scrape."""
        self._connections.set_function(open)
        self._unfinished_bytes.set_function(unfinished_bytes)
        self._unread_bytes.set_function(unread_bytes)

    def count_refused_client(self, reason: str) -> None:
        """Count a refused client; ``reason`` is one of :data:`app.http.connection_limits.Refusal`."""
        self._clients_refused.labels(reason).inc()

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request and its duration; ``route`` is the route template.

        Child metrics are cached, because a lookup by labels costs more than counting.
        """
        key = (method, route, status)
        counter = self._children.get(key)
        if counter is None:
            counter = self._children[key] = self._requests.labels(method, route, str(status))
        counter.inc()
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._request_seconds.labels(route)
        timer.observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
