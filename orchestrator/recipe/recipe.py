"""The recipe: one typed, frozen value. Each section is the configuration of the code that reads it."""

import contextlib
import re
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator import engines, plugins, stages
from orchestrator.config import Model, NotAvailable
from orchestrator.errors import InputError
from orchestrator.planner.plan import Gate
from orchestrator.stages.benchmark import Config as Benchmark
from orchestrator.stages.deploy import Serve
from orchestrator.stages.evaluate import Task
from orchestrator.stages.export import Target
from orchestrator.stages.parity import Config as Parity
from orchestrator.stages.prepare import Dataset, Source
from orchestrator.stages.train import Config as Train
from orchestrator.units import Bytes, Seconds

_ACCELERATOR = re.compile(r"(?P<kind>[A-Za-z0-9-]+):(?P<count>[1-9]\d*)")


def _accelerator(value: str) -> str:
    if not _ACCELERATOR.fullmatch(value):
        raise ValueError(f"an accelerator is written KIND:COUNT, such as H100:1; found {value!r}")
    return value


class Wanted(Model):
    """The `resources` section: what the heavy stages need."""

    accelerators: list[Annotated[str, AfterValidator(_accelerator)]] = []
    """Kinds and counts that would do, such as [H100:1, A100-80GB:1]; the plan takes the first that the cluster has."""
    nodes: int = Field(1, ge=1, le=1)
    """Nodes of one stage; more than one is not available yet."""
    spot: NotAvailable = None
    """Not available yet."""

    def choices(self) -> list[tuple[str, int]]:
        """(kind, count) in the order of preference."""
        found = (_ACCELERATOR.fullmatch(text) for text in self.accelerators)
        return [(match["kind"], int(match["count"])) for match in found if match]


class RecipeGate(Gate):
    """A limit on one number; `500ms` and `2GB` are read as seconds and bytes."""

    min: Annotated[float | None, BeforeValidator(lambda value: _number(value))] = None
    """The smallest value that passes."""
    max: Annotated[float | None, BeforeValidator(lambda value: _number(value))] = None
    """The largest value that passes."""


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for unit in (Seconds, Bytes):
        with contextlib.suppress(ValueError):
            return float(unit.parse(value))
    raise ValueError(f"{value!r} is no number, duration or size; write it like 0.8, 500ms or 2GB")


class Recipe(Model):
    """From data to a released service; every section but the name and the base model is optional."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the runs of this recipe."""
    base_model: Source
    """Hub id, local folder, or {prepare: command}."""
    revision: str | None = None
    """Commit of the hub model; without it, whatever is newest."""
    datasets: list[Dataset] = Field([], max_length=1)
    """Training rows."""
    test_datasets: list[Dataset] = Field([], max_length=1)
    """Held-out rows."""
    allow_leakage: bool = False
    """Go on although test rows are in the training data, too."""
    train: Train | None = None
    """Fine-tuning."""
    evaluate: list[Task] = []
    """Base model and tuned model, side by side."""
    export: list[Target] = []
    """What is made of the tuned model: one entry an engine and a quantization."""
    parity: Parity = Parity()
    """How exports are compared with the model as it was trained."""
    benchmark: Benchmark | None = None
    """Latency and throughput of the deployed release."""
    gates: list[RecipeGate] = []
    """Limits that must hold before the release is promoted."""
    serve: Serve | None = None
    """The service to release to."""
    resources: Wanted = Wanted()
    """What the heavy stages need."""
    compliance: NotAvailable = None
    """Not available yet."""
    budget: NotAvailable = None
    """Not available yet."""
    priority: NotAvailable = None
    """Not available yet."""
    env: NotAvailable = None
    """Not available yet."""


def problems(recipe: Recipe) -> list[tuple[tuple[str | int, ...], str]]:
    """What no single field shows: (where, what) of each contradiction between sections."""
    return [*_missing_sections(recipe), *_tasks(recipe), *_targets(recipe), *_serve(recipe), *_gates(recipe)]


Found = list[tuple[tuple[str | int, ...], str]]


def _missing_sections(recipe: Recipe) -> Found:
    needs = [
        (recipe.test_datasets, "test_datasets", "datasets"),
        (recipe.train, "train", "datasets"),
        (recipe.evaluate, "evaluate", "train"),
        (recipe.evaluate, "evaluate", "test_datasets"),
        (recipe.export, "export", "train"),
        (recipe.serve, "serve", "export"),
        (recipe.benchmark, "benchmark", "serve"),
    ]
    found: Found = [
        ((name,), f"needs a {other!r} section")
        for section, name, other in needs
        if section and not getattr(recipe, other)
    ]
    if recipe.benchmark and not recipe.benchmark.workload.dataset and not recipe.test_datasets:
        found.append((("benchmark",), "needs a 'test_datasets' section, or prompts under workload.dataset"))
    return found


def _tasks(recipe: Recipe) -> Found:
    names = [task.task for task in recipe.evaluate]
    return [
        (("evaluate", index, "task"), f"{name} is given more than once")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _targets(recipe: Recipe) -> Found:
    found: Found = []
    names = [target.name for target in recipe.export]
    for index, target in enumerate(recipe.export):
        if target.name in names[:index]:
            found.append((("export", index, "name"), f"two exports are named {target.name!r}"))
        try:
            support = plugins.load(engines, target.engine).supports(target.quantization, None)
            if not support.ok:
                found.append((("export", index, "quantization"), support.reason))
        except InputError as error:
            found.append((("export", index, "engine"), error.message))
    if recipe.benchmark:
        for index, name in enumerate(recipe.benchmark.targets):
            if recipe.serve and name != recipe.serve.target:
                text = f"only serve.target ({recipe.serve.target!r}) can be measured for now; found {name!r}"
                found.append((("benchmark", "targets", index), text))
    return found


def _serve(recipe: Recipe) -> Found:
    if recipe.serve is None or not recipe.export:
        return []
    target = next((target for target in recipe.export if target.name == recipe.serve.target), None)
    if target is None:
        hint = plugins.nearest(recipe.serve.target, [target.name for target in recipe.export])
        return [(("serve", "target"), f"no export {recipe.serve.target!r}; {hint}")]
    return _engine_args(target.engine, recipe.serve.engine_args)


def _engine_args(engine: str, arguments: dict[str, Any]) -> Found:
    from pydantic import ValidationError

    try:
        options = plugins.load(engines, engine).Options
        options(**arguments)
    except InputError:
        return []  # the unknown engine is reported already
    except ValidationError as error:
        details = error.errors(include_url=False)
        known = sorted(options.model_fields)
        return [
            (
                ("serve", "engine_args", *detail["loc"]),
                f"unknown option of {engine}; {plugins.nearest(str(detail['loc'][-1]), known)}"
                if detail["type"] == "extra_forbidden"
                else detail["msg"],
            )
            for detail in details
        ]
    return []


def _gates(recipe: Recipe) -> Found:
    from orchestrator.recipe.stages import stage_configs

    names = list(stage_configs(recipe))
    found: Found = []
    for index, gate in enumerate(recipe.gates):
        key = ("gates", index, "on")
        if "." not in gate.on:
            found.append((key, f"a gate names a stage and a metric, such as evaluate.exact_match; found {gate.on!r}"))
        elif gate.stage not in names:
            found.append((key, f"this recipe has no stage {gate.stage!r}; {plugins.nearest(gate.stage, names)}"))
        else:
            found += [(key, text) for text in _unknown_metric(gate)]
        if gate.min is None and gate.max is None:
            found.append((("gates", index), "a gate needs min or max"))
    return found


def _unknown_metric(gate: Gate) -> list[str]:
    known = getattr(plugins.load(stages, gate.stage), "METRICS", None)
    if known is None or any(fnmatchcase(gate.metric, name) for name in known):
        return []
    if not known:
        return [f"{gate.stage} measures nothing that a gate could judge"]
    of = gate.metric.rpartition(".")[0] or "TARGET"
    return [
        f"{gate.stage} measures no {gate.metric!r}; "
        + plugins.nearest(gate.metric, [n.replace("*", of) for n in known])
    ]
