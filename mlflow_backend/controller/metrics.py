"""What the controller counts, for Prometheus (https://prometheus.io/docs/practices/naming/)."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """Every metric of one controller; `registry` is what is served."""

    def __init__(self, active: Callable[[], Mapping[str, int]]):
        self.registry = CollectorRegistry()
        self.registry.register(_Active(active))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.settled = Counter(
            "mlflow_compute_settled_runs", "Runs whose end was written here", ["status", "cause"], registry=self.registry
        )
        self.settle_seconds = Histogram(
            "mlflow_compute_settle_seconds",
            "From the end of a run's pod or Job to its end in MLflow",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.calls = Counter("mlflow_compute_api_calls", "Calls to other servers", ["server", "call"], registry=self.registry)
        self.failures = Counter(
            "mlflow_compute_failures", "Looks at a run that failed and will be repeated", ["server"], registry=self.registry
        )


class _Active(Collector):
    """Counted when somebody asks."""

    def __init__(self, active: Callable[[], Mapping[str, int]]):
        self._active = active

    def collect(self):
        family = GaugeMetricFamily("mlflow_compute_active_runs", "Runs that have a Job which has not ended, by state", labels=["state"])
        for state, count in self._active().items():
            family.add_metric([state], count)
        yield family
