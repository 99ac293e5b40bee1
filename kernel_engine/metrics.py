"""The engine's numbers in Prometheus' text format, under SGLang's names (https://prometheus.io/docs/instrumenting)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .engine import Engine
from .step_log import Histogram


class EngineMetrics(Collector):
    """Reads the engine when it is asked; owns no numbers of its own."""

    def __init__(self, engine: Engine, model_name: str):
        self._engine, self._label = engine, model_name
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        log = self._engine.log
        for name, (value, text) in self._gauges().items():
            yield self._labelled(GaugeMetricFamily(f"sglang:{name}", text, labels=["model_name"]), value)
        for name, (value, text) in self._counters().items():
            yield self._labelled(CounterMetricFamily(f"sglang:{name}", text, labels=["model_name"]), value)
        yield self._histogram("time_to_first_token_seconds", "from arrival to the first token", log.first_token)
        yield self._histogram("inter_token_latency_seconds", "mean time between a request's tokens", log.between_tokens)
        yield self._histogram("e2e_request_latency_seconds", "from arrival to the end", log.whole_request)
        if log.settings.lengths:
            yield self._histogram("prompt_tokens_histogram", "prompt tokens of a request", log.prompt_lengths)
            yield self._histogram("generation_tokens_histogram", "tokens generated for a request", log.output_lengths)
        steps = CounterMetricFamily(
            "sglang:step_seconds", "engine time by phase of a step", labels=["model_name", "phase"]
        )
        for phase, seconds in log.seconds.items():
            steps.add_metric([self._label, phase], seconds)
        yield steps

    def _gauges(self) -> dict[str, tuple[float, str]]:
        scheduler, log = self._engine.scheduler, self._engine.log
        return {
            "num_running_reqs": (len(scheduler.running), "requests being computed"),
            "num_queue_reqs": (len(scheduler.waiting), "requests waiting"),
            "num_used_tokens": (scheduler.used, "KV slots held by running requests"),
            "token_usage": (scheduler.used / scheduler.pool.size, "share of the KV slots held by running requests"),
            "gen_throughput": (log.last_throughput, "tokens generated per second"),
            "cache_hit_rate": (
                log.cached_tokens / max(log.cached_tokens + log.prompt_tokens, 1),
                "share of the prompt tokens that came from the cache",
            ),
            "spec_accept_length": (
                1 + log.accepted / log.turns if log.turns else 0.0,
                "tokens that a forward pass gave a request, jumps not counted; 0 without speculation",
            ),
            "spec_accept_rate": (log.accepted / max(log.drafted, 1), "share of the drafted tokens that were right"),
            "kv_available_tokens": (scheduler.pool.free_count, "free KV slots"),
            "kv_evictable_tokens": (scheduler.tree.evictable, "KV slots of cached prefixes that may be evicted"),
        }

    def _counters(self) -> dict[str, tuple[float, str]]:
        log = self._engine.log
        return {
            "prompt_tokens": (log.prompt_tokens, "prompt tokens computed"),
            "generation_tokens": (log.generation_tokens, "tokens generated"),
            "cached_tokens": (log.cached_tokens, "prompt tokens that came from the cache"),
            "num_requests": (log.requests, "requests finished"),
            "num_aborted_requests": (log.aborted, "requests that were aborted or failed"),
            "num_retracted_requests": (log.retractions, "times that a request was retracted"),
        }

    def _labelled(self, family: GaugeMetricFamily | CounterMetricFamily, value: float) -> Metric:
        family.add_metric([self._label], value)
        return family

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(f"sglang:{name}", text, labels=["model_name"])
        sums, running = [], 0
        for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
            running += count
            sums.append((bound, running))
        family.add_metric([self._label], buckets=sums, sum_value=histogram.total)
        return family
