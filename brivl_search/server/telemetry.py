"""Numbers for Prometheus: where requests and queries spend their time, what waits, what the index holds."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Telemetry:
    """The server's counters and times, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "brivl_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "brivl_request_seconds", "From request to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self._steps = Histogram(
            "brivl_step_seconds",
            "Time of a query in each step: encode, search (candidates and filters), rerank (exact scores), records. "
            "Queries that went through a step together each count its whole time.",
            ("step",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "brivl_batch_size", "Items in one call of a worker.", ("worker",), buckets=_SIZES, registry=self.registry
        )
        self.rejected = Counter(
            "brivl_rejected", "Requests refused before a route.", ("reason",), registry=self.registry
        )
        self._waiting = Gauge("brivl_queue_length", "Items without a result.", ("worker",), registry=self.registry)
        self._rows = Gauge("brivl_index_rows", "Live rows of the index.", ("modality",), registry=self.registry)
        self._bytes = Gauge("brivl_index_bytes", "Size of the shards.", ("modality",), registry=self.registry)
        self._generation = Gauge("brivl_index_generation", "The generation answered from.", registry=self.registry)

    def watch(self, worker: str, waiting: Callable[[], int]) -> None:
        """Report the length of a queue whenever metrics are read."""
        self._waiting.labels(worker).set_function(waiting)

    def watch_index(self, modality: str, rows: Callable[[], int], size: Callable[[], int]) -> None:
        self._rows.labels(modality).set_function(rows)
        self._bytes.labels(modality).set_function(size)

    def watch_generation(self, generation: Callable[[], int]) -> None:
        self._generation.set_function(generation)

    def step(self, name: str, seconds: float, queries: int) -> None:
        """`queries` went through a step together, in so many seconds."""
        child = self._steps.labels(name)
        for _ in range(queries):
            child.observe(seconds)

    def batch(self, worker: str, size: int) -> None:
        self._batches.labels(worker).observe(size)

    def text(self) -> bytes:
        """Prometheus's exposition format."""
        return generate_latest(self.registry)
