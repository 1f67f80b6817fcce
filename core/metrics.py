"""Everything that Prometheus is told: the counted requests, and how the parts are right now."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.config import VERSION
from core.resources import Resources

PREFIX = "memory_layer_"


def exposition(resources: Resources) -> bytes:
    """The text format of Prometheus, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(resources.requests.registry)
    registry.register(_Parts(resources))
    return generate_latest(registry)


class _Parts(Collector):
    """Asks the parts when Prometheus asks us: counting here costs no request anything."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield _gauge("info", "What runs", 1, version=VERSION)
        yield _gauge("saves_waiting", "Saves accepted and not yet written", self._saves())
        yield _gauge("event_loop_lag_seconds", "Most lateness in 15 s", self._resources.pulse.lag)
        yield from self._database()
        yield from self._embedding()
        yield from self._index()
        yield from self._limits()

    def _saves(self) -> int:
        return self._resources.saves.depth

    def _database(self) -> Iterator[Metric]:
        pool, up = self._resources.db, self._resources.pulse.database_up
        yield _gauge("database_up", "It answers and has the newest schema", up)
        idle = pool.get_idle_size()
        connections = GaugeMetricFamily(
            PREFIX + "database_connections", "Of this process", labels=["state"]
        )
        connections.add_metric(["idle"], idle)
        connections.add_metric(["busy"], pool.get_size() - idle)
        yield connections
        yield _gauge("database_connections_max", "The pool's limit", pool.get_max_size())

    def _embedding(self) -> Iterator[Metric]:
        worker, backlog = self._resources.worker, self._resources.pulse.backlog
        if worker:
            yield _gauge("embedder_up", "The embedder answers", worker.state == "ok")
        if backlog:
            yield _gauge("embedding_backlog", "Memories without vectors", backlog.waiting)
            yield _gauge("embedding_set_aside", "Memories the embedder refuses", backlog.failed)

    def _index(self) -> Iterator[Metric]:
        index = self._resources.retrieval.caches
        yield _gauge("index_bytes", "Size of the search caches", index.nbytes)
        yield _gauge("index_users", "People with a search cache", len(index.users))
        yield _counter("index_hits", "Searches that found their cache", index.hits)
        yield _counter("index_misses", "Searches that loaded their cache", index.misses)

    def _limits(self) -> Iterator[Metric]:
        limiter = self._resources.limiter
        if limiter.state != "off":
            is_open = limiter.state == "degraded"
            yield _gauge("redis_breaker_open", "This process counts alone", is_open)
        refused = CounterMetricFamily(
            PREFIX + "limit_hits", "Requests refused by a tier's limit", labels=["tier", "window"]
        )
        for labels, count in limiter.refused.items():
            refused.add_metric(labels, count)
        yield refused


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)
