"""Counts of requests for Prometheus; what a request pays for them is two additions."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram

# Seconds, where the promises are. Each is a line for every route; the panel's own are finer.
BUCKETS = (0.05, 0.1, 0.2, 0.5, 2.0)
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
NO_ROUTE = "none"
# Each series would carry its birth as another one.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class RequestMetrics:
    """Every label is one of few: route templates, known methods, classes of status, our codes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self._requests = Counter(
            "memory_layer_requests",
            "Requests answered",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "memory_layer_request_seconds",
            "From the request's head to the last byte of its answer",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter(
            "memory_layer_errors", "Answers by error code", ("code",), registry=self.registry
        )
        # Looking labels up costs more than counting does.
        self._bound: dict[tuple[str | None, str, int], tuple[Counter, Histogram]] = {}

    def add(
        self, route: str | None, method: str, status: int, code: str | None, seconds: float
    ) -> None:
        """Count one request. `status` is 0 where the client left before there was an answer."""
        key = route, method, status
        requests, histogram = self._bound.get(key) or self._bind(key)
        requests.inc()
        histogram.observe(seconds)
        if status >= 400:
            self._errors.labels(code or f"HTTP_{status}").inc()

    def _bind(self, key: tuple[str | None, str, int]) -> tuple[Counter, Histogram]:
        route, method, status = key[0] or NO_ROUTE, key[1], key[2]
        known = method if method in METHODS else "other"
        of_class = f"{status // 100}xx" if status else "none"
        bound = self._requests.labels(route, known, of_class), self._seconds.labels(route)
        self._bound[key] = bound
        return bound
