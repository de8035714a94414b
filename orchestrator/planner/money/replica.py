"""The replica of a comparison: how many GPUs a model needs, and how many tokens/s it carries within a service level."""

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import best_concurrency, speed
from orchestrator.units import Seconds

_DEGREES = (1, 2, 4, 8)


class Level(Model):
    """The requests, and the latencies within which they are answered."""

    input_tokens: int
    """Prompt of a request."""
    output_tokens: int
    """Answer of a request."""
    ttft: Seconds = Seconds(2)
    """Longest mean time to the first token."""
    tpot: Seconds = Seconds(0.05)
    """Longest mean time per output token."""


class Replica(Model):
    """A replica that was planned."""

    gpus: int
    """Of it."""
    tokens_per_s: Estimate
    """Input and output together, at the most requests at once that keep the level."""


def plan(model: ModelFacts, serving: Serving, gpu: Gpu, level: Level, gpus: int | None = None) -> Replica | Unknown:
    """With so many GPUs; None: the fewest (1, 2, 4 or 8) on which the model fits and keeps the level."""
    found: Replica | Unknown = Unknown(reason="unknown: no number of GPUs was tried")
    for degree in (gpus,) if gpus else _DEGREES:
        found = _planned(model, serving.model_copy(update={"tensor": degree}), gpu, level)
        if isinstance(found, Replica):
            return found
    return found


def _planned(model: ModelFacts, serving: Serving, gpu: Gpu, level: Level) -> Replica | Unknown:
    lengths = (level.input_tokens, level.output_tokens)
    at_once = best_concurrency(model, serving, gpu, *lengths, ttft_s=level.ttft, tpot_s=level.tpot)
    if isinstance(at_once, Unknown):
        return at_once
    where = f"{serving.engine}, {serving.quantization}, {serving.tensor}x {gpu.kind}"
    if not at_once:
        return Unknown(
            reason=f"unknown: with {where} not even one request of {lengths[0]}+{lengths[1]} tokens keeps TTFT"
            f" {level.ttft} and TPOT {level.tpot}"
        )
    found = speed(model, serving, gpu, at_once, *lengths)
    if isinstance(found, Unknown):
        return found
    source = (
        f"predicted for {where}: {at_once} requests of {lengths[0]}+{lengths[1]} tokens at once keep TTFT"
        f" {level.ttft} and TPOT {level.tpot}"
    )
    return Replica(gpus=serving.tensor, tokens_per_s=_both(found.throughput, level, source))


def _both(output: Estimate, level: Level, source: str) -> Estimate:
    """Output tokens/s as input and output tokens/s."""
    factor = (level.input_tokens + level.output_tokens) / level.output_tokens
    ends = {"value": output.value * factor, "low": output.low * factor, "high": output.high * factor}
    return Estimate(unit="tokens/s", source=source, **ends)
