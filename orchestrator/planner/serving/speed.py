"""How fast a target answers: time to the first token, time per token and throughput, by concurrency or by request rate.

A prediction from the roofline of step.py under the load of load.py, with an interval of about 90 % from
a fit that left each source of measurements out in turn. Not modelled: prefix caching, uneven lengths, a slow network.
"""

import math

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.serving.efficiency import ASSUMED, Fitted, efficiency, fitted, width
from orchestrator.planner.serving.formats import compute_type
from orchestrator.planner.serving.load import Lengths, Point, Target, arriving, burst, closed
from orchestrator.planner.serving.memory import ServingFit, capacity, fixed_terms, pool_bytes, verdict
from orchestrator.planner.serving.servable import check_servable
from orchestrator.planner.serving.serving import Serving, batched_tokens, sequences
from orchestrator.planner.serving.shape import Shape, shape
from orchestrator.planner.serving.step import Efficiency, Step, step
from orchestrator.planner.serving.weights import gpu_weights


class ServingSpeed(Model):
    """What a target does under one load, all its copies together."""

    throughput: Estimate
    """Output tokens/s."""
    ttft: Estimate
    """Mean time to the first token, s, with the wait for a place."""
    tpot: Estimate
    """Mean time per output token after the first, s; its terms are the parts of a decode step."""
    requests_per_s: float
    """Finished."""
    running: float
    """Sequences that decode at once; fewer than asked for when the others wait."""
    places: int
    """Sequences that the cache and the engine's batch have room for."""
    bound: str
    """What most of a decode step goes to: weights and products, cache, activations and links, overhead."""


def speed(
    model: ModelFacts,
    serving: Serving,
    gpu: Gpu,
    concurrency: float | None,
    input_tokens: int,
    output_tokens: int,
    *,
    requests: int | None = None,
    constants: Fitted | None = None,
) -> ServingSpeed | Unknown:
    """With so many requests at any moment (None: as many as there is room for).

    `requests`: their number, where start and end of a short run count. Unknown when the model's dimensions or the GPU's
    speeds are, or when it does not fit. Raises InputError for a layout or a format that cannot be run.
    """
    check_servable(serving, gpu)
    lengths = Lengths(max(1, input_tokens), max(1, output_tokens))
    found = target(model, serving, gpu, lengths, constants or fitted())
    if isinstance(found, Unknown):
        return found
    each = math.inf if concurrency is None else max(1.0, concurrency / serving.data)
    if requests is not None:
        point = burst(found, lengths, -(-requests // serving.data), each)
    else:
        point = closed(found, lengths, min(each, float(places(found))) if concurrency is None else each)
    return _speed(serving, found, lengths, point, constants or fitted())


def speed_at_rate(
    model: ModelFacts,
    serving: Serving,
    gpu: Gpu,
    requests_per_s: float,
    input_tokens: int,
    output_tokens: int,
    *,
    requests: int | None = None,
    constants: Fitted | None = None,
) -> ServingSpeed | Unknown:
    """With requests that arrive at random at that rate; beyond what the target can do, its queue grows."""
    check_servable(serving, gpu)
    lengths = Lengths(max(1, input_tokens), max(1, output_tokens))
    found = target(model, serving, gpu, lengths, constants or fitted())
    if isinstance(found, Unknown):
        return found
    each = None if requests is None else -(-requests // serving.data)
    point = arriving(found, lengths, requests_per_s / serving.data, each)
    return _speed(serving, found, lengths, point, constants or fitted())


def best_concurrency(
    model: ModelFacts,
    serving: Serving,
    gpu: Gpu,
    input_tokens: int,
    output_tokens: int,
    *,
    ttft_s: float = math.inf,
    tpot_s: float = math.inf,
) -> int | Unknown:
    """The most requests at once under which both mean latencies are kept; 0: not even one keeps them."""
    check_servable(serving, gpu)
    lengths = Lengths(max(1, input_tokens), max(1, output_tokens))
    found = target(model, serving, gpu, lengths, fitted())
    if isinstance(found, Unknown):
        return found
    low, high = 0, places(found)
    while low < high:
        middle = (low + high + 1) // 2
        point = closed(found, lengths, middle)
        kept = point.ttft_s <= ttft_s and point.tpot_s <= tpot_s
        low, high = (middle, high) if kept else (low, middle - 1)
    return low * serving.data


def target(model: ModelFacts, serving: Serving, gpu: Gpu, lengths: Lengths, constants: Fitted) -> Target | Unknown:
    """One copy as the load model takes it; Unknown also when it has no room for a single sequence of these lengths."""
    costs = shape(model, serving, gpu)
    draft = shape(serving.draft, Serving(engine=serving.engine, tensor=serving.tensor), gpu) if serving.draft else None
    if isinstance(costs, Unknown) or isinstance(draft, Unknown):
        return costs if isinstance(costs, Unknown) else Unknown(reason=str(draft))
    room = _room(model, serving, gpu, lengths)
    if isinstance(room, Unknown):
        return room
    a, k = serving.draft_acceptance, serving.draft_tokens
    return Target(
        shape=costs,
        eff=reached(serving, gpu, constants),
        capacity=room,
        most_sequences=sequences(serving, gpu),
        most_tokens=batched_tokens(serving, gpu),
        microbatches=1 if serving.traits.splits_layers else serving.pipeline,
        draft=draft,
        draft_tokens=k if draft else 0,
        accepted=(1 - a ** (k + 1)) / (1 - a) if draft else 1.0,
    )


def reached(serving: Serving, gpu: Gpu, constants: Fitted, engine: str | None = None) -> Efficiency:
    """What the target's engine (or that section of the assumed habits) reaches on this GPU."""
    packed = serving.traits.splits_layers and compute_type(serving.format, gpu.flops) == "int8"
    section = engine or serving.traits.constants
    return efficiency(section, gpu.arch, constants, graphs=serving.cuda_graphs, packed=packed)


def places(found: Target) -> int:
    """Sequences that may run at once."""
    return min(found.capacity, found.most_sequences * found.microbatches)


def _room(model: ModelFacts, serving: Serving, gpu: Gpu, lengths: Lengths) -> int | Unknown:
    """Sequences of one copy; an engine that takes cache as it is needed holds more, as few are at their end."""
    longest = lengths.prompt + lengths.answer
    fit = verdict(model, serving, gpu, context=max(longest, serving.max_model_len or 0))
    if isinstance(fit, Unknown):
        return fit
    if serving.traits.up_front and fit.fits:
        return sequences(serving, gpu)
    found = _capacity(model, serving, gpu, longest if serving.traits.whole_sequence else round(lengths.mean))
    return found if found and _starts(fit, serving, longest) else Unknown(reason=f"unknown: no speed: {fit.reason}")


def _starts(fit: ServingFit, serving: Serving, longest: int) -> bool:
    return fit.longest >= longest and (fit.fits or serving.max_model_len is None)


def _capacity(model: ModelFacts, serving: Serving, gpu: Gpu, tokens: int) -> int:
    weights = gpu_weights(model, serving)
    if isinstance(weights, Unknown):
        return 0
    fixed = sum(term.amount for term in fixed_terms(model, serving, gpu, weights))
    return capacity(model, serving, pool_bytes(serving, gpu, fixed), tokens)


def _speed(serving: Serving, found: Target, lengths: Lengths, point: Point, constants: Fitted) -> ServingSpeed:
    habits = ASSUMED[serving.traits.constants]
    one = step(found.shape, found.eff, point.running / found.microbatches, lengths.mean)
    parts = _parts(one, found.shape)

    def estimate(unit: str, value: float, name: str, terms: list[Term]) -> Estimate:
        off = width(serving.traits.constants, found.shape.arch, constants, name)
        return Estimate(unit=unit, value=value, low=value / off, high=value * off, terms=terms, source=habits.source)

    rate = point.requests_per_s * serving.data
    return ServingSpeed(
        throughput=estimate("tokens/s", rate * lengths.answer, "throughput", []),
        ttft=estimate("s", point.ttft_s, "ttft", []),
        tpot=estimate("s", point.tpot_s, "tpot", _terms(parts, point.tpot_s)),
        requests_per_s=rate,
        running=point.running * serving.data,
        places=places(found) * serving.data,
        bound=max(parts, key=lambda name: parts[name]),
    )


def _parts(one: Step, costs: Shape) -> dict[str, float]:
    return {
        "weights and products": one.products * costs.stages,
        "cache": one.cache * costs.stages,
        "activations and links": one.traffic * costs.stages,
        "overhead": one.overhead * costs.stages,
    }


def _terms(parts: dict[str, float], tpot: float) -> list[Term]:
    found = [Term(name=name, amount=amount, because="of a step that only decodes") for name, amount in parts.items()]
    rest = tpot - sum(parts.values())
    return [*found, Term(name="prompts", amount=rest, because="prompts of others that are read in between, drafts")]
