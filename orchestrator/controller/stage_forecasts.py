"""How long each stage will take: sizes and rates for what moves files, the planner's speeds for what computes."""

from collections.abc import Callable, Sequence

from orchestrator.bench import sweep
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import parameters
from orchestrator.controller import asked
from orchestrator.controller.asked import Rows
from orchestrator.controller.known import Known
from orchestrator.planner import layouts, stage_times
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import TargetForecast
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import speed
from orchestrator.planner.training.finetune import FineTune

Time = Estimate | Unknown
CELL_S = 2.0
"""Between two cells of a benchmark: workloads are made, statistics computed."""


def stage_time(stage: str, known: Known, targets: Sequence[TargetForecast]) -> Time:
    """Wall time of one stage, s."""
    found = _TIMES.get(stage)
    return found(known, targets) if found else stage_times.moment(0.1, 1, 5, "a few calls")


def _prepare(known: Known, _: Sequence[TargetForecast]) -> Time:
    recipe = known.recipe
    if any(source.prepare for source in [recipe.base_model, *recipe.datasets, *recipe.test_datasets] if source):
        return Unknown(reason="unknown: how long a prepare command takes")
    size = _weights(known)
    if known.base.fetched:
        return stage_times.moment(1, 5, 60, "the files are here; they are read once for their digests")
    if size is None:
        return Unknown(reason="unknown: the size of the base model")
    return stage_times.moved(size, stage_times.NETWORK, f"{size / 1e9:.1f} GB from the hub")


def _data(known: Known, _: Sequence[TargetForecast]) -> Time:
    found = [each for each in (known.rows, known.held_out) if isinstance(each, Rows)]
    if not found:
        return Unknown(reason="unknown: the size of the data sets")
    tokens = sum(each.tokens.value for each in found)
    return stage_times.moved(tokens, stage_times.TOKENIZER, f"{tokens:,.0f} tokens are made")


def _train(known: Known, _: Sequence[TargetForecast]) -> Time:
    train, facts, gpu, tune = known.recipe.train, known.base.facts, known.gpu, known.tune
    assert train is not None, "a train stage has its section"
    for missing in (facts, tune, gpu):
        if isinstance(missing, Unknown):
            return missing
    assert tune is not None, "a stage that will run has a fine-tune"
    assert isinstance(tune, FineTune), "what is unknown has been returned"
    assert isinstance(facts, ModelFacts), "what is unknown has been returned"
    assert isinstance(gpu, Gpu), "and so has the accelerator"
    tokens = asked.train_tokens(train, known.rows)
    return layouts.wall(facts, tune, gpu, tokens)


def _evaluate(known: Known, _: Sequence[TargetForecast]) -> Time:
    """Base and tuned model, one after the other, write an answer to each held-out row by `transformers`."""
    gpu, facts, size = known.gpu, known.base.facts, _weights(known)
    for missing in (facts, gpu):
        if isinstance(missing, Unknown):
            return missing
    if size is None:
        return Unknown(reason="unknown: the size of the base model")
    assert isinstance(facts, ModelFacts), "what is unknown has been returned"
    assert isinstance(gpu, Gpu), "and so has the accelerator"
    if isinstance(known.held_out, Unknown):
        return Unknown(reason=known.held_out.reason)
    prompt = max(1, round(known.held_out.tokens.value / known.held_out.number))
    parts = [stage_times.moved(2 * size, stage_times.DISK, "the model is loaded twice")]
    for limit, answer, batch in {
        (t.limit, t.max_new_tokens, t.batch_size) for t in known.recipe.evaluate if t.task != "perplexity"
    }:
        quantization = "nf4" if known.recipe.train and known.recipe.train.adapter == "qlora" else "bf16"
        served = Serving(
            engine="transformers", quantization=quantization, max_model_len=prompt + answer, max_num_seqs=batch
        )
        found = speed(facts, served, gpu, batch, prompt, answer)
        if isinstance(found, Unknown):
            return Unknown(reason=found.reason)
        requests = 2 * min(limit or known.held_out.number, known.held_out.number)
        parts.append(stage_times.answers(requests, answer, found.throughput, "answers of both models, at most"))
    return stage_times.added(*parts)


def _export(known: Known, _: Sequence[TargetForecast]) -> Time:
    size = _weights(known)
    if size is None:
        return Unknown(reason="unknown: the size of the base model")
    moves = 1 + len(known.exports)
    what = f"{moves} x {size / 1e9:.1f} GB: merged, then converted for each target"
    return stage_times.moved(moves * size, stage_times.CONVERSION, what)


def _parity(known: Known, _: Sequence[TargetForecast]) -> Time:
    size = _weights(known)
    if size is None:
        return Unknown(reason="unknown: the size of the base model")
    parity = known.recipe.parity
    asked_ = (parity.prompts + parity.near_limit_prompts) * (1 + len(known.exports))
    return stage_times.added(
        stage_times.moved((1 + len(known.exports)) * size, stage_times.DISK, "the model and its exports are loaded"),
        stage_times.moment(
            0.05 * asked_, 0.5 * asked_, 10.0 * asked_, f"{asked_} prompts, half a second each (assumed)"
        ),
    )


def _deploy(known: Known, _: Sequence[TargetForecast]) -> Time:
    size = _weights(known)
    if size is None:
        return Unknown(reason="unknown: the size of the base model")
    return stage_times.moved(size, stage_times.DISK, "the engine loads the model", stage_times.ENGINE_START)


def _benchmark(known: Known, targets: Sequence[TargetForecast]) -> Time:
    section = known.recipe.benchmark
    assert section is not None, "a benchmark stage has its section"
    if section.sweep or section.servers:
        return Unknown(reason="unknown: how long other servers, or a search, take")
    chosen = section.targets or ([known.recipe.serve.target] if known.recipe.serve else [t.name for t in targets])
    parts: list[Estimate] = []
    for target in targets:
        if target.name not in chosen:
            continue
        for cell in sweep.cells(section, [target.name]):
            found = _cell(section, cell, target)
            if isinstance(found, Unknown):
                return found
            parts.append(found)
    return stage_times.added(*parts, stage_times.moment(1, 5, 30, "reports"))


def _cell(section: sweep.SweepPlan, cell: sweep.CellPlan, target: TargetForecast) -> Time:
    """So many seconds at a rate of requests, or so many requests at the target's speed; warm-up included."""
    seconds = sweep.duration_s(section, cell)
    if seconds is not None:
        most = seconds + (section.warmup_duration if cell.rate else 0.0)
        return stage_times.moment(
            most, most + CELL_S, 1.5 * most + 30, f"{most:g} s of requests and what is left of them"
        )
    loads: list[tuple[int | None, Estimate, int]] = [
        (load.concurrency, load.throughput, load.output_tokens) for load in target.loads
    ]
    load = next((load for load in loads if load[0] == cell.concurrency), None)
    if load is None:
        measured = next((one for one in target.measured if one.concurrency == cell.concurrency), None)
        if measured is None:
            return Unknown(reason=target.unknown or f"unknown: the speed of {target.name} under every load")
        rate = Estimate(unit="tokens/s", value=measured.throughput, low=measured.throughput, high=measured.throughput)
        load = (cell.concurrency, rate, section.max_tokens)
    requests = (sweep.num_requests(section, cell) or 0) + sweep.warmup_requests(section, cell)
    what = f"{target.name} at {cell.concurrency} requests at once"
    return stage_times.added(stage_times.answers(requests, load[2], load[1], what), _between())


def _between() -> Estimate:
    return stage_times.moment(CELL_S / 4, CELL_S, 5 * CELL_S, "workloads and statistics")


_TIMES: dict[str, Callable[[Known, Sequence[TargetForecast]], Time]] = {
    "prepare": _prepare,
    "data": _data,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "parity": _parity,
    "deploy": _deploy,
    "benchmark": _benchmark,
}


def _weights(known: Known) -> float | None:
    """Bytes of the model in 16 bits."""
    facts = known.base.facts
    if isinstance(facts, Unknown):
        return None
    counted = parameters(facts)
    amount = facts.published_parameters if isinstance(counted, Unknown) else counted.total
    return amount * 2.0 if amount else None
