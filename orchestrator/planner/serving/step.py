"""Seconds of one step of an engine, from its roofline: some sequences decode one token each, some prompts are read.

    products  = (weights read / bandwidth) joined with (FLOP / peak), each at the efficiency that is reached
    cache     = keys and values of all decoding sequences / bandwidth, or their FLOP where that is more (MLA)
    prompts   = attention of each prompt token to what precedes it
    traffic   = activations between kernels + all-reduces of a tensor-parallel group
    overhead  = the engine's per step, per layer and per sequence

Products overlap reading and computing only in part: their times are joined by a p-norm rather than by the larger one.
"""

from typing import NamedTuple

from orchestrator.planner.serving.shape import Layers, Shape

SLOW_LINK = 100e9
"""Bytes/s under which GPUs reach one another over PCIe."""
HOST_PATH = 3.0
"""Times the latency of an all-reduce there: 30-40 us, as it may pass through the host's memory."""


class Efficiency(NamedTuple):
    """What an engine reaches on a GPU: fitted, or from the literature where nothing was measured."""

    memory: float
    """Of the peak bandwidth, while weights are read."""
    cache: float
    """Of the peak bandwidth, while keys and values are read."""
    compute: float
    """Of the peak FLOP/s in dense products."""
    grouped: float
    """Of that, in the products of routed experts."""
    attention: float
    """Of the 16-bit peak in the attention of prompts."""
    link: float
    """Of the bandwidth between GPUs."""
    reduce_s: float
    """Latency of one all-reduce."""
    step_s: float
    """Of each step: scheduling and the gap between steps."""
    layer_s: float
    """Of each layer of each step: kernels that wait for one another."""
    extra_s: float
    """Of what mixtures and other attention have beyond a dense layer, in such layers."""
    sequence_s: float
    """Of each sequence of each step: sampling, detokenizing, sending."""
    request_s: float
    """Of each request, outside the steps: HTTP, tokenizing."""
    overlap: float
    """Exponent that joins reading and computing: 1 adds them, infinity takes the larger."""


class Step(NamedTuple):
    """Parts of a step, in seconds."""

    products: float
    cache: float
    prompts: float
    traffic: float
    overhead: float

    @property
    def total(self) -> float:
        """Of the whole step of one stage."""
        return sum(self)


def step(
    shape: Shape, eff: Efficiency, decoding: float, context: float, prompt: float = 0.0, before: float = 0.0
) -> Step:
    """With `decoding` sequences of `context` tokens, and `prompt` tokens that attend to `before` earlier ones each."""
    tokens = decoding + prompt
    memory = shape.bandwidth * eff.memory
    reading = (shape.dense_bytes + shape.expert_bytes * touched(shape, tokens * shape.data)) / memory
    compute = tokens * (shape.dense_seconds + shape.expert_seconds / eff.grouped) / eff.compute
    compute += max(decoding, min(prompt, 1.0)) * shape.head_seconds / eff.compute
    return Step(
        products=_join(reading, compute, eff.overlap),
        cache=decoding * _cache(shape, eff, context),
        prompts=prompt
        * sum(_prefill(kind, before) for kind in shape.attention)
        / shape.attention_flops
        / eff.attention,
        traffic=tokens * shape.activation_bytes / memory + _communication(shape, eff, tokens),
        overhead=_overhead(shape, eff, decoding),
    )


def _overhead(shape: Shape, eff: Efficiency, decoding: float) -> float:
    waiting = shape.layers * eff.layer_s + (shape.waits - shape.layers) * eff.extra_s
    return waiting + (eff.step_s + decoding * eff.sequence_s) / shape.stages


def touched(shape: Shape, tokens: float) -> float:
    """The part of the experts that so many tokens visit together, each choosing at random."""
    if not shape.routed:
        return 0.0
    return 1 - float((1 - shape.active / shape.routed) ** max(tokens, 0.0))


def _join(reading: float, compute: float, overlap: float) -> float:
    larger = max(reading, compute)
    parts = float((reading / larger) ** overlap + (compute / larger) ** overlap)
    return larger * float(parts ** (1 / overlap))


def _cache(shape: Shape, eff: Efficiency, context: float) -> float:
    """Of one decoding sequence."""
    total = shape.state_bytes / (shape.bandwidth * eff.cache)
    for kind in shape.attention:
        seen = min(context, kind.window or context)
        reading = seen * kind.bytes_per_token / (shape.bandwidth * eff.cache)
        total += max(reading, seen * kind.decode_flops / (shape.attention_flops * eff.attention))
    return total


def _prefill(kind: Layers, before: float) -> float:
    return kind.prefill_flops * min(before, kind.window or before)


def _communication(shape: Shape, eff: Efficiency, tokens: float) -> float:
    """Two all-reduces a layer of a tensor-parallel group; dispatch and combine of a spread-out mixture."""
    if shape.link is None:
        return 0.0
    found, link = 0.0, shape.link * eff.link
    latency = eff.reduce_s * (HOST_PATH if shape.link < SLOW_LINK else 1)
    if shape.shards > 1:
        moved = tokens * shape.hidden * 2 * 2 * (shape.shards - 1) / shape.shards
        found += shape.layers * 2 * (latency + moved / link)
    if shape.data > 1:
        moved = tokens * min(shape.active, shape.data) * shape.hidden * 3 * (shape.data - 1) / shape.data
        found += shape.expert_layers * 2 * (latency + moved / 2 / link)
    return found
