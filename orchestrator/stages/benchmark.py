"""The `benchmark` stage: latency and throughput of the deployed release, at each concurrency, measured by a client.

It talks to the engine itself, not through the gateway. Every prompt carries a nonce, so that an engine's prefix cache
does not flatter the numbers. `loadgen/_old_metrics.py` defines what TTFT, ITL, TPOT and end-to-end latency are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, field_validator

from orchestrator.config import Model, NotAvailable
from orchestrator.errors import EngineError
from orchestrator.loadgen import hardware
from orchestrator.loadgen._old_metrics import LATENCIES, PERCENTILES, Summary, summarize
from orchestrator.loadgen.workload import Messages, read_prompts
from orchestrator.stages.base import Context, Outputs, Resources, local_path
from orchestrator.units import Seconds

LIBRARIES = ("aiohttp",)
METRICS = (
    *(f"*.{latency}_p{share}" for latency in LATENCIES for share in PERCENTILES),
    "*.tokens_per_s",
    "*.requests_per_s",
    "*.errors",
)


class Workload(Model):
    """What is asked."""

    dataset: str | None = None
    """A jsonl file of chats, each sent without its last answer; default: the test rows of the recipe."""
    synthetic: NotAvailable = None
    """Not available yet."""
    trace: NotAvailable = None
    """Not available yet."""


class Config(Model):
    """The `benchmark` section."""

    targets: list[str] = []
    """Names of exports to measure; for now the one that `serve.target` deploys, which is the default."""
    workload: Workload = Workload()
    """The prompts."""
    concurrency: list[Annotated[int, Field(ge=1, le=1000)]] = Field([1, 8], min_length=1)
    """Numbers of simultaneous streams; each is measured on its own."""
    num_requests: int | None = Field(None, ge=1)
    """Measured requests at each concurrency; default: four per stream, at least 32."""
    warmup: int = Field(4, ge=0)
    """Requests before them at each concurrency that are not measured."""
    max_tokens: int = Field(128, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0, ge=0)
    """0 is greedy decoding."""
    seed: int = 17
    """Decides the order of the prompts."""
    request_timeout: Seconds = Seconds(300)
    """Time after which a request counts as failed."""
    request_rate: NotAvailable = None
    """Not available yet."""
    sweep: NotAvailable = None
    """Not available yet."""

    @field_validator("targets")
    @classmethod
    def _one_target(cls, targets: list[str]) -> list[str]:
        if len(targets) > 1:
            raise ValueError(f"measuring several targets is not available yet; name the one of serve.target: {targets}")
        return targets

    @field_validator("concurrency")
    @classmethod
    def _each_once(cls, levels: list[int]) -> list[int]:
        if len(set(levels)) < len(levels):
            raise ValueError(f"each concurrency is measured once, but {levels} repeats one")
        return levels

    def requests(self, concurrency: int) -> int:
        """Measured requests at a concurrency."""
        return self.num_requests or max(32, 4 * concurrency)


def estimate(config: Config) -> Resources:
    """One core for the client; the engine has its own reservation."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Measure the deployed engine. Raises EngineError when every request at some concurrency failed."""
    deployed = context.inputs["deploy"].report
    source = local_path(config.workload.dataset or context.inputs["data"].artifacts["test_rows"], context.cwd)
    prompts, progress = read_prompts(source), _Progress(config, context)
    levels = [_level(config, deployed, prompts, concurrency, progress) for concurrency in config.concurrency]
    return Outputs(
        metrics=_metrics(deployed["target"], levels),
        report={
            **{key: deployed.get(key) for key in ("target", "release", "engine", "engine_version", "model")},
            "hardware": hardware.describe(),
            "workload": {"prompts": len(prompts), "dataset": source.name, "seed": config.seed, "nonce": True},
            "settings": config.model_dump(mode="json", include={"max_tokens", "temperature", "warmup"}),
            "levels": levels,
        },
    )


class _Progress:
    """Emits a `progress` event at every tenth of a level, counted over all levels."""

    def __init__(self, config: Config, context: Context) -> None:
        self._emit, self._step = context.emit, 0
        self._total = sum(config.requests(concurrency) for concurrency in config.concurrency)

    def counter(self, concurrency: int, requests: int) -> Callable[[Any], None]:
        """Called after each request of the level."""
        every = max(1, requests // 10)

        def count(_: Any) -> None:
            self._step += 1
            if self._step % every == 0 or self._step == self._total:
                self._emit("progress", step=self._step, steps=self._total, concurrency=concurrency)

        return count

    def finished(self, concurrency: int, summary: Summary) -> None:
        """The numbers of a level, as soon as they are known."""
        data = {f"{name}_p95": spread["p95"] for name, spread in summary.latencies.items()}
        rates = {"tokens_per_s": summary.tokens_per_s, "requests_per_s": summary.requests_per_s}
        self._emit("level", concurrency=concurrency, errors=sum(summary.errors.values()), **data, **rates)


def _level(
    config: Config, deployed: Mapping[str, Any], prompts: Sequence[Messages], concurrency: int, progress: _Progress
) -> dict[str, Any]:  # fmt: skip
    from orchestrator.loadgen._old_drive import ClosedLoop, measure  # aiohttp: a plan must not need it

    requests = config.requests(concurrency)
    load = ClosedLoop(
        url=deployed["engine_url"],
        model=deployed["model"],
        concurrency=concurrency,
        num_requests=requests,
        warmup=config.warmup,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        seed=config.seed,
        timeout_s=config.request_timeout,
    )
    measured = measure(load, prompts, progress.counter(concurrency, requests))
    summary = summarize(measured.records)
    if not summary.succeeded:
        raise _all_failed(deployed["release"], concurrency, summary)
    progress.finished(concurrency, summary)
    return {"concurrency": concurrency, **asdict(summary), "client_cpu_share": measured.client_cpu_share}


def _all_failed(release: str, concurrency: int, summary: Summary) -> EngineError:
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.errors.items())
    said = f"; for example: {summary.error_example}" if summary.error_example else ""
    return EngineError(
        f"all {summary.requests} requests to {release} at concurrency {concurrency} failed ({kinds}){said}",
        next_step="read the engine's log with `orch logs`, then `orch resume`",
    )


def _metrics(target: str, levels: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`<target>.c8.ttft_p95` for each level, and over all of them the worst latency, the best rate and all errors."""
    metrics: dict[str, float] = {}
    for level in levels:
        flat = _flat(level)
        metrics |= {f"{target}.c{level['concurrency']}.{name}": value for name, value in flat.items()}
        for name, value in flat.items():
            key = f"{target}.{name}"
            metrics[key] = metrics.get(key, 0) + value if name == "errors" else max(metrics.get(key, value), value)
    return metrics


def _flat(level: Mapping[str, Any]) -> dict[str, float]:
    shares = [f"p{share}" for share in PERCENTILES]
    spreads = {name: level["latencies"][name] for name in LATENCIES if name in level["latencies"]}
    flat = {f"{name}_{share}": spread[share] for name, spread in spreads.items() for share in shares}
    rates = {name: level[name] for name in ("tokens_per_s", "requests_per_s")}
    return {**flat, **rates, "errors": float(sum(level["errors"].values()))}
