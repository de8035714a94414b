"""Puts a plan's forecast together: stages, serving targets, licence, budget; for the accelerators that were chosen."""

from collections.abc import Sequence

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.controller import asked, measured
from orchestrator.controller.asked import Ask, Target
from orchestrator.controller.history import History
from orchestrator.controller.known import Known
from orchestrator.controller.placing import CLUSTER
from orchestrator.controller.stage_forecasts import Time, stage_time
from orchestrator.errors import InputError
from orchestrator.planner import layouts, license
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import (
    Acceptance,
    BudgetForecast,
    Forecast,
    LicenseForecast,
    LoadForecast,
    Price,
    StageForecast,
    TargetForecast,
    total,
)
from orchestrator.planner.layouts import Slot
from orchestrator.planner.money import budget
from orchestrator.planner.money.cost import of_run
from orchestrator.planner.money.prices import PriceRange
from orchestrator.planner.plan import PlannedStage
from orchestrator.planner.serving.memory import memory as serving_memory
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import ServingSpeed, speed, speed_at_rate
from orchestrator.planner.training.finetune import FineTune
from orchestrator.planner.training.memory import memory


def forecast(known: Known, planned: Sequence[PlannedStage], accepted: Acceptance | None) -> Forecast:
    """Of the stages that will run."""
    price = _price(known)
    targets = [_target(known, planned, export) for export in known.exports]
    slot = known.placement.basis
    past = History(known.store, known.recipe.name, known.cluster.name, slot.name if slot else None)
    stages = [_stage(known, stage, targets, price, past) for stage in planned if not stage.reused_from]
    time = total([(stage.stage, stage.time) for stage in stages], "s")
    cost = total([(stage.stage, stage.cost) for stage in stages], "USD")
    limits = known.recipe.budget
    facts = known.base.facts
    return Forecast(
        model=facts.id if isinstance(facts, ModelFacts) else None,
        accelerator=known.placement.basis.name if known.placement.basis else None,
        model_source=facts.reason if isinstance(facts, Unknown) else known.base.source,
        train_tokens=asked.train_tokens(known.recipe.train, known.rows) if known.recipe.train else None,
        price=price,
        stages=stages,
        time=time,
        cost=cost,
        targets=targets,
        layouts=known.placement.layouts,
        prefer=known.recipe.resources.prefer,
        license=licence(known, accepted),
        budget=BudgetForecast(budget=limits, judgement=budget.judge(limits, cost, time)) if limits else None,
        warnings=[*known.warnings, *_warnings(known, stages)],
    )


def licence(known: Known, accepted: Acceptance | None) -> LicenseForecast:
    """The gate's answer; data sets count where their licence is given or `compliance` asks for it."""
    recipe, facts = known.recipe, known.base.facts
    source = recipe.base_model
    name = source.path if source and source.path and not source.prepare else "base_model"
    if isinstance(facts, Unknown):
        facts = ModelFacts(id=name, license=source.license if source else None)
    datasets = {
        (dataset.path or dataset.prepare or "data set"): dataset.license
        for dataset in [*recipe.datasets, *recipe.test_datasets]
        if dataset.license or recipe.compliance
    }
    compliance = recipe.compliance or license.Compliance()
    return LicenseForecast(verdict=license.judge(facts, compliance, known.catalog, datasets), accepted=accepted)


def _price(known: Known) -> Price | Unknown | None:
    slot = known.placement.basis
    if slot is not None:
        if isinstance(slot.price, Unknown):
            return slot.price
        found, count = slot.price, slot.count
        return Price(
            usd_per_hour=found.middle * count,
            low=found.low * count,
            high=found.high * count,
            term=found.term,
            source=found.source,
        )
    usd, source = known.cluster.price(None, 0)
    if usd is None:
        return None
    return Price(usd_per_hour=usd, low=usd, high=usd, term=CLUSTER, source=source or known.cluster.name)


def _stage(
    known: Known,
    stage: PlannedStage,
    targets: Sequence[TargetForecast],
    price: Price | Unknown | None,
    past: History,
) -> StageForecast:
    time = stage_time(stage.name, known, targets)
    if isinstance(time, Unknown):
        tokens = asked.train_tokens(known.recipe.train, known.rows) if known.recipe.train else None
        time = past.time(stage.name, tokens) or time
    memory, resume = (_memory(known, resume=again) if stage.name == "train" else None for again in (False, True))
    if isinstance(memory, Unknown):
        memory = past.memory(stage.name) or memory
    return StageForecast(
        stage=stage.name, time=time, cost=_cost(time, price, known.placement.basis), memory=memory, resume=resume
    )


def _cost(time: Time, price: Price | Unknown | None, slot: Slot | None) -> Time:
    """Of everything that the run holds, all the time: a node is not given back between stages."""
    if price is None:
        return Unknown(reason="unknown: the cluster's file has no price")
    if isinstance(price, Unknown):
        return Unknown(reason=price.reason)
    count = slot.count if slot else 1
    each = PriceRange(
        term=price.term,
        low=price.low / count,
        middle=price.usd_per_hour / count,
        high=price.high / count,
        providers=[],
        source=price.source,
    )
    return of_run(time, count, each)


def _memory(known: Known, *, resume: bool) -> Estimate | Unknown | None:
    facts, tune, gpu = known.base.facts, known.tune, known.gpu
    for missing in (facts, tune):
        if isinstance(missing, Unknown):
            return missing
    if not known.recipe.resources.accelerators:
        return Unknown(reason="unknown: memory is predicted for accelerators, not for the CPU")
    assert isinstance(facts, ModelFacts), "what is unknown has been returned"
    if not isinstance(tune, FineTune):
        return None
    return memory(facts, tune, None if isinstance(gpu, Unknown) else gpu, resume=resume)


def _target(known: Known, planned: Sequence[PlannedStage], export: Target) -> TargetForecast:
    slot, gpu, facts = known.placement.basis, known.gpu, known.base.facts
    found = TargetForecast(
        name=export.name,
        engine=export.engine,
        quantization=export.quantization,
        accelerator=slot.name if slot else None,
        fit=Unknown(reason="unknown"),
        measured=measured.loads(
            known.store, planned, export.name, export.engine, export.quantization, slot, known.catalog
        ),
    )
    for missing in (export.serving, facts, gpu):
        if isinstance(missing, Unknown):
            return found.model_copy(update={"fit": missing, "unknown": missing.reason})
    assert isinstance(export.serving, Serving), "what is unknown has been returned"
    assert isinstance(facts, ModelFacts), "and so has the model"
    assert isinstance(gpu, Gpu), "and so has the accelerator"
    assert slot is not None, "whose slot it is"
    placed = layouts.shared(export.serving, slot)
    try:
        fit = serving_memory(facts, placed, gpu)
    except InputError as error:
        why = f"unknown: {error.message}"
        return found.model_copy(update={"fit": Unknown(reason=why), "unknown": why})
    loads, reason = ([], None) if found.measured else _loads(known, facts, placed, gpu, slot)
    return found.model_copy(update={"fit": fit, "loads": loads, "unknown": reason})


def _loads(
    known: Known, facts: ModelFacts, placed: Serving, gpu: Gpu, slot: Slot
) -> tuple[list[LoadForecast], str | None]:
    loads = []
    for ask in known.asks:
        lengths = (ask.request.input_tokens, ask.request.output_tokens)
        if ask.rate is None:
            found = speed(facts, placed, gpu, ask.concurrency, *lengths)
        else:
            found = speed_at_rate(facts, placed, gpu, ask.rate, *lengths)
        if isinstance(found, Unknown):
            return [], found.reason
        loads.append(_load(ask, found, slot))
    return loads, None


def _load(ask: Ask, found: ServingSpeed, slot: Slot) -> LoadForecast:
    return LoadForecast(
        concurrency=ask.concurrency,
        rate=ask.rate,
        input_tokens=ask.request.input_tokens,
        output_tokens=ask.request.output_tokens,
        ttft=found.ttft,
        tpot=found.tpot,
        throughput=found.throughput,
        usd_per_million=layouts.million(found, slot, ask.request),
    )


def _warnings(known: Known, stages: Sequence[StageForecast]) -> list[str]:
    gpu = known.gpu
    found = []
    train = next((stage for stage in stages if stage.stage == "train"), None)
    if train and isinstance(gpu, Gpu) and isinstance(train.memory, Estimate) and isinstance(train.resume, Estimate):
        visible = gpu.memory_visible
        if train.memory.value <= visible < train.resume.value:
            found.append(f"training fits, but resuming from a checkpoint {layouts.needs(train.resume.value, visible)}")
        elif train.memory.value <= visible < train.memory.high:
            most = layouts.needs(train.memory.high, visible)
            found.append(f"training may not fit: at the far end of the prediction it {most}")
    slot = known.placement.slot
    if slot and slot.count > 1 and known.recipe.train:
        found.append(f"training runs on 1 of the {slot.count} accelerators: more than one is not available yet")
    return found
