"""The controller's metrics for Prometheus (https://prometheus.io/docs/practices/naming/)."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Every metric of one controller, in `registry`.

    `active` counts runs by namespace and state, `readable` says for each namespace whether its
    cache is up to date.
    """

    def __init__(
        self,
        active: Callable[[], Mapping[tuple[str, str], int]],
        readable: Callable[[], Mapping[str, bool]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Namespaces(active, readable))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.settled = Counter(
            "mlflow_compute_settled_runs",
            "Runs whose end the controller wrote",
            ["status", "cause", "namespace"],
            registry=self.registry,
        )
        self.settle_seconds = Histogram(
            "mlflow_compute_settle_seconds",
            "From the end of a run's pod or Job to its end in MLflow",
            ["namespace"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.calls = Counter(
            "mlflow_compute_api_calls",
            "Calls to other servers",
            ["server", "namespace", "call"],
            registry=self.registry,
        )
        self.failures = Counter(
            "mlflow_compute_failures",
            "Attempts that failed, by the server that failed; empty for internal errors",
            ["server", "namespace"],
            registry=self.registry,
        )


class _Namespaces(Collector):
    """Gauges that are computed when the metrics are read."""

    def __init__(
        self,
        active: Callable[[], Mapping[tuple[str, str], int]],
        readable: Callable[[], Mapping[str, bool]],
    ) -> None:
        self._active, self._readable = active, readable

    def collect(self) -> Iterator[GaugeMetricFamily]:
        runs = GaugeMetricFamily(
            "mlflow_compute_active_runs",
            "Runs whose Job has not ended, by state",
            labels=["namespace", "state"],
        )
        for labels, count in self._active().items():
            runs.add_metric(labels, count)
        yield runs
        readable = GaugeMetricFamily(
            "mlflow_compute_namespace_readable",
            "1 if Jobs and pods can be listed and watched, 0 if not",
            labels=["namespace"],
        )
        for namespace, is_readable in self._readable().items():
            readable.add_metric([namespace], is_readable)
        yield readable
