"""What was typed for `orch cost compare`, turned into the assumptions of a case and its comparison."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.catalog.assumptions import Assumptions
    from orchestrator.catalog.catalog import Catalog
    from orchestrator.catalog.gpus import Gpu
    from orchestrator.catalog.models import ModelFacts
    from orchestrator.catalog.prices import ApiPrice
    from orchestrator.planner.money.comparison import Comparison
    from orchestrator.recipe.load import Loaded

_FACTORS = {"%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Given:
    """The options, as text where their reading can fail."""

    recipe: Path | None
    model: str | None
    gpu: str | None
    gpus_per_replica: int | None
    replicas: int | None
    tokens_per_s_per_replica: float | None
    provider: str | None
    engine: str | None
    quantization: str | None
    request_tokens: int
    max_ttft: str
    max_tpot: str
    tokens_per_month: str
    input_share: str | None
    versus: str
    tier: str
    settings: list[str]
    assumptions: Path | None
    on: str | None


@dataclass
class Hosted:
    """What is self-hosted, as far as it is known."""

    model: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    engine: str = "vllm"
    quantization: str = "bf16"


def comparison(given: Given, home: Path) -> "Comparison":
    """The comparison that was asked for. Raises InputError for what cannot be read, is unknown or is absurd."""
    from orchestrator.catalog.catalog import load
    from orchestrator.planner.money import case
    from orchestrator.planner.money.comparison import compare

    catalog, day = load(home), _day(given.on)
    price = _api_price(catalog, given, day)
    settings = {**from_file(given.assumptions), **from_options(given.settings)}
    hosted = _hosted(given)
    if hosted.gpu is None:
        raise InputError(
            "what is self-hosted? No GPU was given",
            next_step="give a recipe, or --gpu H100 with --model (or --gpus-per-replica); `orch gpus` lists GPUs",
        )
    gpu = catalog.gpu(hosted.gpu)
    assumptions, remarks = _fleet(given, hosted, catalog, gpu, day)
    assumptions = case.priced_gpu(assumptions, gpu.kind, catalog.gpu_prices(gpu), day, given.provider)
    assumptions = case.settled(case.priced_api(assumptions, price), settings, day)
    return compare(
        assumptions,
        versus=f"{price.vendor}/{price.model}",
        hosted=_words(hosted, gpu),
        api_price=case.row(price),
        warnings=[*remarks, *case.doubts(price, assumptions, day)],
    )


def _fleet(given: Given, hosted: Hosted, catalog: "Catalog", gpu: "Gpu", day: date) -> tuple["Assumptions", list[str]]:
    """Load, replica and its throughput: as given, else as predicted for the model."""
    from orchestrator.catalog.assumptions import shipped
    from orchestrator.planner.estimate import Unknown
    from orchestrator.planner.money import case
    from orchestrator.units import Tokens

    share = _share(given.input_share)
    planned = _planned(given, hosted, catalog.model(hosted.model), gpu, share) if hosted.model else None
    remarks = []
    if isinstance(planned, Unknown):
        if given.gpus_per_replica is None and hosted.gpus is None:
            raise InputError(
                f"{hosted.model} on {gpu.kind}: {planned.reason}", next_step="another --gpu, or more of it"
            )
        if given.tokens_per_s_per_replica is None:
            remarks, planned = [planned.reason], None
    gpus = (
        given.gpus_per_replica or hosted.gpus or (planned.gpus if planned and not isinstance(planned, Unknown) else 1)
    )
    ask = case.Ask(
        tokens_per_month=_quantity("--tokens-per-month", given.tokens_per_month, Tokens),
        input_share=share,
        gpus_per_replica=gpus,
        replicas=given.replicas,
        tokens_per_s_per_replica=given.tokens_per_s_per_replica,
        weights_gb=_weights_gb(catalog.model(hosted.model), hosted) if hosted.model else None,
    )
    found = case.asked(shipped(), ask, day)
    if planned and not isinstance(planned, Unknown) and given.tokens_per_s_per_replica is None:
        found = case.predicted(found, planned.tokens_per_s, day)
    return found, remarks


def _planned(given: Given, hosted: Hosted, model: "ModelFacts", gpu: "Gpu", share: float) -> Any:
    from orchestrator.planner.money.replica import Level, plan
    from orchestrator.planner.serving.serving import Serving
    from orchestrator.units import Seconds

    reading = round(given.request_tokens * share)
    level = Level(
        input_tokens=max(1, reading),
        output_tokens=max(1, given.request_tokens - reading),
        ttft=_quantity("--max-ttft", given.max_ttft, Seconds),
        tpot=_quantity("--max-tpot", given.max_tpot, Seconds),
    )
    serving = Serving(engine=hosted.engine, quantization=hosted.quantization)
    return plan(model, serving, gpu, level, given.gpus_per_replica or hosted.gpus)


def _weights_gb(model: "ModelFacts", hosted: Hosted) -> float | None:
    from orchestrator.planner.estimate import Unknown
    from orchestrator.planner.serving.serving import Serving
    from orchestrator.planner.serving.weights import gpu_weights

    found = gpu_weights(model, Serving(engine=hosted.engine, quantization=hosted.quantization))
    return None if isinstance(found, Unknown) else sum(found.values()) / 1e9


def _hosted(given: Given) -> Hosted:
    """From the recipe, with what was given instead."""
    found = _from_recipe(given.recipe) if given.recipe else Hosted()
    if given.gpu is not None and given.gpu != found.gpu:
        found.gpu, found.gpus = given.gpu, None
    for name in ("model", "engine", "quantization"):
        if getattr(given, name) is not None:
            setattr(found, name, getattr(given, name))
    return found


def _from_recipe(path: Path) -> Hosted:
    from orchestrator.cli.app import home
    from orchestrator.recipe.load import load_recipe

    loaded = load_recipe(path, [], home())
    recipe = loaded.recipe
    found = Hosted(model=recipe.base_model.path if recipe.base_model else None)
    for kind, count in recipe.resources.choices()[:1] or _chosen(loaded):
        found.gpu, found.gpus = kind, count
    target = next((t for t in recipe.export if recipe.serve and t.name == recipe.serve.target), None)
    if target:
        found.engine, found.quantization = target.engine, target.quantization
    return found


def _chosen(loaded: "Loaded") -> list[tuple[str, int]]:
    """The accelerators that a plan takes where the recipe takes any; [] where there are none."""
    from orchestrator.cli.app import home
    from orchestrator.clusters.load import load_cluster
    from orchestrator.controller.planning import make_plan
    from orchestrator.store.store import Store

    forecast = make_plan(loaded, load_cluster(None), Store(home()), Path.cwd()).forecast
    if forecast is None or forecast.accelerator is None:
        return []
    kind, _, count = forecast.accelerator.partition(":")
    return [(kind, int(count))]


def _words(hosted: Hosted, gpu: "Gpu") -> str:
    model = f"{hosted.model} ({hosted.quantization}, {hosted.engine})" if hosted.model else "a model of your own"
    return f"{model} on {gpu.name}"


def _api_price(catalog: "Catalog", given: Given, day: date) -> "ApiPrice":
    from orchestrator.planner.money.prices import api_price

    found = catalog.api_prices(given.versus)
    if not found:
        known = sorted({price.model for price in catalog.api_prices()})
        raise InputError(
            f"the catalog has no price of a hosted model {given.versus!r}; {_nearest(given.versus, known)}",
            next_step="`orch prices` lists them; catalog/*.yaml in your project adds some",
        )
    return api_price(found, day, tier=given.tier)


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name.rsplit("/", 1)[-1], known, n=4, cutoff=0.5)
    return f"nearest: {', '.join(close)}" if close else f"such as {', '.join(known[:: max(1, len(known) // 6)][:6])}"


def _share(text: str | None) -> float:
    if text is None:
        raise InputError(
            "--input-share is missing: a hosted API asks several times as much for an output token as for an input"
            " token, so a bill cannot be told from their sum",
            next_step="--input-share 0.75 stands for three input tokens to each output token; your API's usage page or"
            " your gateway's log has both counts",
        )
    from orchestrator.cli.bench_options import percent

    return percent("--input-share", text)


def _quantity(option: str, text: str, kind: Any) -> Any:
    try:
        return kind.parse(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--on {text}: write a day like 2026-11-24") from None


def from_options(settings: list[str]) -> dict[str, tuple[float, str]]:
    """`staff.run_fte=0.3`, `api.cache_hit_share=40%`, `staff.usd_per_year=$200k`: name -> (value, source)."""
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting}: write NAME=VALUE, such as staff.run_fte=0.3")
        found[name.strip()] = (_number(name, text.strip()), f"--set {setting}")
    return found


def _number(name: str, text: str) -> float:
    bare = text.removeprefix("$").replace("_", "").replace(",", "")
    factor = _FACTORS.get(bare[-1:])
    try:
        return float(bare[:-1]) * factor if factor else float(bare)
    except ValueError:
        raise InputError(f"{name}={text}: a number is needed, such as 0.3, 40%, 200k or $1,500") from None


def from_file(path: Path | None) -> dict[str, tuple[float, str]]:
    """Assumptions of a YAML file, `staff: {run_fte: 0.3}` or `staff.run_fte: 0.3`: name -> (value, file and line)."""
    if path is None:
        return {}
    from orchestrator.documents import read
    from orchestrator.validation import origin

    document = read(path)
    if document.problems:
        raise InputError("\n".join(str(problem) for problem in document.problems))
    return {
        ".".join(key): (_number(".".join(key), str(value)), str(origin(document, key)))
        for key, value in _leaves(document.data, ())
    }


def _leaves(data: Mapping[str, Any], key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*key, str(name)))
        else:
            yield (*key, str(name)), value
