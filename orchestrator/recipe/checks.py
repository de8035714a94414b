"""What no single field of a recipe shows: sections that need each other, targets, engine options, gates."""

from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from orchestrator import engines, plugins, stages
from orchestrator.catalog.catalog import load
from orchestrator.config import Model
from orchestrator.engines.base import LORA
from orchestrator.errors import InputError
from orchestrator.planner.plan import Gate
from orchestrator.recipe.recipe import Recipe
from orchestrator.recipe.stages import stage_configs
from orchestrator.stages.train import adapter_of, starts_from_base

Found = list[tuple[tuple[str | int, ...], str]]
"""(where, what) of each problem."""


def problems(recipe: Recipe) -> Found:
    """What no single field shows: (where, what) of each contradiction between sections."""
    found = (_missing_sections, _train, _tasks, _targets, _adapters, _serve, _benchmark, _gates)
    return [problem for check in found for problem in check(recipe)]


def _missing_sections(recipe: Recipe) -> Found:
    needs = [
        (recipe.test_datasets, "test_datasets", "datasets"),
        (recipe.train, "train", "datasets"),
        (recipe.evaluate, "evaluate", "train"),
        (recipe.evaluate, "evaluate", "test_datasets"),
        (recipe.export, "export", "train"),
        (recipe.serve, "serve", "export"),
    ]
    found: Found = [
        ((name,), f"needs a {other!r} section")
        for section, name, other in needs
        if section and not getattr(recipe, other)
    ]
    if recipe.base_model is None:
        found += _no_base_model(recipe)
    return found


def _no_base_model(recipe: Recipe) -> Found:
    """Without one a recipe can only benchmark servers that run already."""
    sections = ("datasets", "test_datasets", "train", "evaluate", "export", "serve")
    needing = [name for name in sections if getattr(recipe, name)]
    if needing:
        return [(("base_model",), f"is missing; {', '.join(needing)} start{'s' if len(needing) == 1 else ''} from it")]
    if recipe.benchmark is None:
        return [(("base_model",), "is missing; only a recipe that just benchmarks servers has none")]
    return []


def _train(recipe: Recipe) -> Found:
    """Options of an adapter that do not go together, by the key to change."""
    train = recipe.train
    if train is None:
        return []
    if train.adapter == "full":
        of_adapters = ("lora_modules_to_save", "peft_use_rslora", "peft_init_lora_weights")
        changed = [name for name in of_adapters if getattr(train, name) != type(train).model_fields[name].default]
        return [(("train", name), "means nothing with adapter full, which has no adapter") for name in changed]
    start = train.peft_init_lora_weights
    if not starts_from_base(start):
        return []
    reasons = {
        "qlora": "is taken from the base's weights, which adapter qlora has in 4 bits; use adapter lora, or gaussian",
        "dora": "cannot be saved as a plain adapter together with the magnitudes of adapter dora; use adapter lora",
    }
    found = [reasons[train.adapter]] if train.adapter in reasons else []
    if train.lora_modules_to_save:
        found.append("cannot be saved as a plain adapter together with lora_modules_to_save; leave one of them out")
    return [(("train", "peft_init_lora_weights"), f"{start} {reason}") for reason in found]


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
            module = plugins.load(engines, target.engine)
        except InputError as error:
            found.append((("export", index, "engine"), error.message))
            continue
        if not _is_served(module, target.quantization):
            found.append((("export", index, "quantization"), _unknown_quantization(module, target.quantization)))
    return found


def _is_served(module: Any, quantization: str) -> bool:
    """Whether the engine knows the word, in whatever spelling it takes: then it is served somewhere."""
    if quantization in module.QUANTIZATIONS:
        return True
    return any(module.supports(quantization, gpu).ok for gpu in (None, *load().gpus))


def _unknown_quantization(module: Any, word: str) -> str:
    """As the engine says it, with the engines that do know it."""
    others = [name for name in plugins.names(engines) if _is_served(plugins.load(engines, name), word)]
    elsewhere = f"; it is one of {' and '.join(others)}" if others else ""
    return f"{module.supports(word, None).reason}{elsewhere}"


def _adapters(recipe: Recipe) -> Found:
    """Will the engines load what training leaves? Each of them says what it refuses, and what would do."""
    if recipe.train is None:
        return []
    adapter = adapter_of(recipe.train)
    found: Found = []
    for index, target in enumerate(recipe.export):
        key = ("export", index, "quantization")
        if target.engine not in plugins.names(engines):
            continue  # reported already
        if adapter is not None:
            found += [
                (key, text) for text in plugins.load(engines, target.engine).refuses(adapter, target.quantization)
            ]
        elif target.quantization == LORA:
            found.append((key, "full fine-tuning leaves no adapter to serve; export it in another format"))
    return found


def _benchmark(recipe: Recipe) -> Found:
    if recipe.benchmark is None:
        return []
    names = [target.name for target in recipe.export]
    found: Found = []
    if not names and not recipe.benchmark.servers:
        found.append((("benchmark",), "has nothing to measure: name servers, or export a model"))
    for index, name in enumerate(recipe.benchmark.targets):
        key = ("benchmark", "targets", index)
        if name not in names:
            found.append((key, f"no export {name!r}; {plugins.nearest(name, names)}"))
        elif name in recipe.benchmark.targets[:index]:
            found.append((key, f"{name} is named more than once"))
    taken = list(names)
    for index, server in enumerate(recipe.benchmark.servers):
        if server.name in taken:
            found.append((("benchmark", "servers", index, "name"), f"two targets are named {server.name!r}"))
        taken.append(server.name)
    return [*found, *_benchmark_engine_args(recipe, recipe.benchmark.engine_args)]


def _benchmark_engine_args(recipe: Recipe, given: dict[str, dict[str, Any]]) -> Found:
    engines_of = {target.name: target.engine for target in recipe.export}
    found: Found = []
    for name, arguments in given.items():
        key = ("benchmark", "engine_args", name)
        if name not in engines_of:
            found.append((key, f"no export {name!r}; {plugins.nearest(name, list(engines_of))}"))
        elif recipe.serve and name == recipe.serve.target:
            found.append((key, f"{name} is deployed, and runs with the engine_args of serve"))
        else:
            found += _engine_args(engines_of[name], arguments, key)
    return found


def _serve(recipe: Recipe) -> Found:
    if recipe.serve is None or not recipe.export:
        return []
    target = next((target for target in recipe.export if target.name == recipe.serve.target), None)
    if target is None:
        hint = plugins.nearest(recipe.serve.target, [target.name for target in recipe.export])
        return [(("serve", "target"), f"no export {recipe.serve.target!r}; {hint}")]
    return _engine_args(target.engine, recipe.serve.engine_args, ("serve", "engine_args"))


def _engine_args(engine: str, arguments: dict[str, Any], key: tuple[str, ...]) -> Found:
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
                (*key, *detail["loc"]),
                f"unknown option of {engine}; {plugins.nearest(str(detail['loc'][-1]), known)}"
                if detail["type"] == "extra_forbidden"
                else detail["msg"],
            )
            for detail in details
        ]
    return []


def _gates(recipe: Recipe) -> Found:
    configs = stage_configs(recipe)
    names = list(configs)
    found: Found = []
    for index, gate in enumerate(recipe.gates):
        key = ("gates", index, "on")
        if "." not in gate.on:
            found.append((key, f"a gate names a stage and a metric, such as evaluate.exact_match; found {gate.on!r}"))
        elif gate.stage not in names:
            found.append((key, f"this recipe has no stage {gate.stage!r}; {plugins.nearest(gate.stage, names)}"))
        else:
            found += [(key, text) for text in _unknown_metric(gate, configs[gate.stage])]
        if gate.min is None and gate.max is None:
            found.append((("gates", index), "a gate needs min or max"))
    return found


def _unknown_metric(gate: Gate, config: Model) -> list[str]:
    module = plugins.load(stages, gate.stage)
    if hasattr(module, "metric_names"):
        return _unknown_name(gate, module.metric_names(config))
    known = getattr(module, "METRICS", None)
    if known is None or any(fnmatchcase(gate.metric, name) for name in known):
        return []
    if not known:
        return [f"{gate.stage} measures nothing that a gate could judge"]
    of = gate.metric.rpartition(".")[0] or "TARGET"
    return [
        f"{gate.stage} measures no {gate.metric!r}; "
        + plugins.nearest(gate.metric, [n.replace("*", of) for n in known])
    ]


def _unknown_name(gate: Gate, known: list[str]) -> list[str]:
    """Names of the form target.metric: an unknown target is not taken for an unknown metric."""
    if gate.metric in known:
        return []
    target, targets = gate.metric.partition(".")[0], list(dict.fromkeys(name.partition(".")[0] for name in known))
    if target not in targets:
        return [f"{gate.stage} has no target {target!r}; {plugins.nearest(target, targets)}"]
    of_target = [name for name in known if name.startswith(f"{target}.")]
    return [f"{gate.stage} measures no {gate.metric!r}; {plugins.nearest(gate.metric, of_target)}"]
