"""The formulas that test claims about hardware: what fits, what it carries, what it costs by the month."""

from pydantic import validate_call

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import parameters
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.money.claims import Figure, Finding, Range, Verdict, point, span
from orchestrator.planner.money.prices import market
from orchestrator.planner.serving.memory import memory
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import speed
from orchestrator.planner.serving.weights import gpu_weights
from orchestrator.planner.training.finetune import FineTune
from orchestrator.planner.training.memory import memory as training_memory

HOURS = 730
_REQUEST = 2000
"""Tokens of a request where a claim does not say."""
_MFU = 0.6
"""Share of the peak that a good prefill reaches; the claim's own kind of roofline."""


@validate_call(config={"arbitrary_types_allowed": True})
def capacity(
    catalog: Catalog,
    *,
    models: list[str],
    quantizations: list[str],
    gpu: str,
    gpus: int,
    tokens_per_day: float,
    input_share: float,
) -> Finding:
    """Which of the models fit, and how much of what they carry the load is."""
    mean, part = tokens_per_day / 86400, catalog.gpu(gpu)
    figures, words, fit = [point("mean load", mean, "tokens/s")], [], 0
    for name in models:
        model = catalog.model(name)
        for quantization in quantizations:
            carried = _carries(model, Serving(quantization=quantization, tensor=gpus), part, input_share)
            if isinstance(carried, str):
                words.append(f"{name} {quantization}: {carried}")
                continue
            fit += 1
            figures.append(span(f"{name} {quantization} carries", carried, "tokens/s"))
            words.append(
                f"{name} {quantization}: predicted {carried[0]:,.0f}-{carried[1]:,.0f} tokens/s, the mean load is"
                f" {mean / carried[1]:.0%}-{mean / carried[0]:.0%} of it"
            )
    verdict: Verdict = "right" if fit == len(models) * len(quantizations) else "in part" if fit else "wrong"
    words.append("with so little of it used, availability (N+1) sets the number of GPUs, not capacity")
    return Finding(verdict=verdict, words=f"{mean:,.0f} tokens/s on average. {'; '.join(words)}.", figures=figures)


def _carries(model: ModelFacts, serving: Serving, gpu: Gpu, input_share: float) -> Range | str:
    """(low, high) of input and output tokens/s, or why there are none."""
    fits = memory(model, serving, gpu, context=_REQUEST)
    if isinstance(fits, Unknown):
        return fits.reason
    if not fits.fits:
        return fits.reason
    reading = round(_REQUEST * input_share)
    found = speed(model, serving, gpu, None, reading, _REQUEST - reading)
    if isinstance(found, Unknown):
        return found.reason
    factor = _REQUEST / (_REQUEST - reading)
    return found.throughput.low * factor, found.throughput.high * factor


@validate_call(config={"arbitrary_types_allowed": True})
def replica_price(catalog: Catalog, *, model: str, quantization: str, gpus: list[str], usd_per_month: Range) -> Finding:
    """What one GPU on which the model fits costs a month."""
    figures: list[Figure] = []
    words: list[str] = []
    medians: list[float] = []
    for name in gpus:
        gpu, price = catalog.gpu(name), market(catalog.gpu_prices(name), "on-demand")
        if isinstance(price, Unknown):
            words.append(f"{gpu.kind} {price.reason}")
            continue
        fits = memory(catalog.model(model), Serving(quantization=quantization), gpu, context=_REQUEST)
        room = "" if not isinstance(fits, Unknown) and fits.fits else " (does not fit)"
        figures.append(span(f"one {gpu.kind}", (price.low * HOURS, price.high * HOURS), "USD/month"))
        medians.append(price.middle * HOURS)
        words.append(f"one {gpu.kind} ${price.middle * HOURS:,.0f}{room}")
    if not medians:
        return Finding(verdict="unknown", words="; ".join(words))
    low, high = usd_per_month
    times = f"the claim is {low / max(medians):.1f}x to {high / min(medians):.1f}x one GPU"
    inside = [low <= median <= high for median in medians]
    verdict: Verdict = "right" if all(inside) else "in part" if any(inside) else "wrong"
    return Finding(verdict=verdict, words=f"on demand, median: {', '.join(words)}; {times}.", figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def first_token(catalog: Catalog, *, model: str, gpu: str, ttft_s: Range) -> Finding:
    """Whether the model fits on the GPU at all, and how long a prompt that time can be enough for."""
    facts, part = catalog.model(model), catalog.gpu(gpu)
    counted = parameters(facts)
    if isinstance(counted, Unknown) or not part.flops:
        return Finding(verdict="unknown", words="the model's parameters or the GPU's speed are not known")
    best = max(part.flops.get(kind, 0.0) for kind in ("bf16", "fp8"))
    fits = {
        kind: memory(facts, Serving(quantization=kind), part, context=_REQUEST) for kind in ("bf16", "fp8", "w4a16")
    }
    words = [
        f"{kind} " + ("fits" if not isinstance(fit, Unknown) and fit.fits else fit.reason) for kind, fit in fits.items()
    ]
    seconds = 2 * counted.active * 1000 / (best * _MFU)
    prompts = (ttft_s[0] / seconds * 1000, ttft_s[1] / seconds * 1000)
    words.append(
        f"1,000 prompt tokens take at least {1000 * seconds:.0f} ms in FP8 at {_MFU:.0%} of the peak: the claim holds"
        f" for prompts of up to {prompts[0]:,.0f}-{prompts[1]:,.0f} tokens with no queue"
    )
    figures = [point("1,000 prompt tokens", 1000 * seconds, "ms"), span("longest prompt", prompts, "tokens")]
    return Finding(verdict="in part", words=f"{'; '.join(words)}.", figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def qlora_fits(catalog: Catalog, *, pairs: list[tuple[str, str]], sequence_len: int) -> Finding:
    """Whether a QLoRA with a batch of one fits on one GPU."""
    tune = FineTune(method="qlora", micro_batch_size=1, sequence_len=sequence_len)
    words, figures, fit = [], [], []
    for name, kind in pairs:
        needed, gpu = training_memory(catalog.model(name), tune), catalog.gpu(kind)
        if isinstance(needed, Unknown):
            words.append(f"{name} on {kind}: {needed.reason}")
            continue
        fit.append(needed.value <= gpu.memory_visible)
        gib = (needed.value / 2**30, gpu.memory_visible / 2**30)
        figures.append(point(f"{name} on {kind}", gib[0], "GiB"))
        words.append(f"{name} needs {gib[0]:.1f} GiB, {kind} has {gib[1]:.1f}: {'fits' if fit[-1] else 'does not fit'}")
    verdict: Verdict = "unknown" if not fit else "right" if all(fit) else "in part" if any(fit) else "wrong"
    text = f"predicted, batch 1 x {sequence_len} tokens: {'; '.join(words)}."
    return Finding(verdict=verdict, words=text, figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def compression(catalog: Catalog, *, model: str, bits: int, claimed_bits: int) -> Finding:
    """How much smaller the weights get, against the format in which they are published."""
    facts = catalog.model(model)
    kinds = {"16 bits": "bf16", "8 bits": "fp8", f"{bits} bits": "w4a16" if bits == 4 else "fp8"}
    sizes: dict[str, float] = {}
    for name, kind in kinds.items():
        found = gpu_weights(facts, Serving(quantization=kind))
        if isinstance(found, Unknown):
            return Finding(verdict="unknown", words=found.reason)
        sizes[name] = sum(found.values())
    small = sizes[f"{bits} bits"]
    figures = [point(name, size / 1e9, "GB") for name, size in sizes.items()]
    figures.append(point("smaller than published", sizes["16 bits"] / small, "x"))
    words = (
        f"{claimed_bits} to {bits} bits is {claimed_bits / bits:g}x, but nobody ships {claimed_bits} bits: {model} is"
        f" published in 16, {sizes['16 bits'] / 1e9:.0f} GB, and with {bits} bits, where embedding and head keep 16, it"
        f" is {small / 1e9:.0f} GB: {sizes['16 bits'] / small:.1f}x; against 8 bits {sizes['8 bits'] / small:.1f}x."
    )
    return Finding(verdict="wrong", words=words, figures=figures)
