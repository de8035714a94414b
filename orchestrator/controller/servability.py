"""Will the targets load what this recipe trains, and answer what it asks? What the base model's dimensions and files
say, before anything is paid for.

What an adapter alone decides is in `recipe/checks.py`, what an accelerator decides in `refusals.py`. A base model that
is not known yet passes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import engines, plugins
from orchestrator.catalog.models import ModelFacts
from orchestrator.controller import asked
from orchestrator.controller.asked import Rows, Target
from orchestrator.controller.base_model import Base
from orchestrator.documents import Key
from orchestrator.engines.base import LORA
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.serving import Serving, context_length
from orchestrator.planner.serving.tensor_parallel import degrees, indivisible
from orchestrator.recipe.recipe import Recipe
from orchestrator.stages.train import TOKENIZER_FILES, adapter_of

Problem = tuple[Key, str]
TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Where a tokenizer's folder may have its chat template, besides `tokenizer_config.json`."""
MAX_RANK = "max_lora_rank"
"""The option by which engines limit the rank of adapters."""
_LENGTHENS = ("rope", "hf_overrides")
"""Parts of the names of options by which an engine is told of more positions than the model's own."""


class Found(NamedTuple):
    """What is wrong, and what to mind."""

    problems: list[Problem]
    """(where in the recipe, what) of what no hardware changes."""
    warnings: list[str]


def check(recipe: Recipe, base: Base, targets: list[Target], rows: Rows | Unknown) -> Found:
    """Of every target on its engine with its options."""
    problems = [*_template(recipe, base), *_ranks(recipe)]
    warnings = list(_adapter_on_another_base(recipe))
    if isinstance(base.facts, ModelFacts):
        problems += _training_length(recipe, base.facts)
        for target in targets:
            if target.started and isinstance(target.serving, Serving):
                problems += _parallel(recipe, target, target.serving, base.facts)
                problems += _context(recipe, target, target.serving, base.facts)
                warnings += _short(recipe, target, target.serving, base.facts, rows)
    return Found(problems, warnings)


def _template(recipe: Recipe, base: Base) -> Iterator[Problem]:
    """Rows are chats: without a template they can be neither rendered nor served."""
    if base.folder is None or not recipe.datasets or _has_template(base.folder) is not False:
        return
    yield (
        ("base_model",),
        f"the tokenizer in {base.folder} has no chat template, so that its chats can be neither trained nor served;"
        " put chat_template.jinja beside it, or start from the instruct variant of the model",
    )


def _has_template(folder: Path) -> bool | None:
    """None: there is no tokenizer to have one, which is another error."""
    config = folder / "tokenizer_config.json"
    if not config.is_file() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return None
    written = config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
    return written or any((folder / name).exists() for name in TEMPLATES)


def _ranks(recipe: Recipe) -> Iterator[Problem]:
    """Of adapters that are wider than the options let the engine load."""
    adapter, given = adapter_of(recipe.train) if recipe.train else None, asked.engine_args(recipe)
    for target in recipe.export if adapter else []:
        most = given.get(target.name, {}).get(MAX_RANK)
        if target.quantization == LORA and adapter and most is not None and adapter.rank > most:
            key = (*asked.args_key(recipe, target.name), MAX_RANK)
            yield key, f"{most} is less than the rank {adapter.rank} of the adapter; leave it out, or raise it"


def _training_length(recipe: Recipe, facts: ModelFacts) -> Iterator[Problem]:
    train, most = recipe.train, facts.max_context
    if train and train.sample_packing and most and train.sequence_len > most:
        yield (
            ("train", "sequence_len"),
            f"packed rows of {train.sequence_len} tokens are longer than the {most} positions of {facts.id};"
            f" set it to at most {most}",
        )


def _parallel(recipe: Recipe, target: Target, serving: Serving, facts: ModelFacts) -> Iterator[Problem]:
    """Of GPUs that the options ask for; for those that the plan takes, `layouts` asks the same."""
    if serving.shards == 1:
        return
    ways = {"expert_parallel": serving.expert_parallel}
    if parts := indivisible(facts, serving.shards, serving.format, **ways):
        allowed = ", ".join(map(str, degrees(facts, serving.format, **ways)))
        yield (
            asked.args_key(recipe, target.name),
            f"{parts[0]} of {facts.id} cannot be divided over {serving.shards} GPUs; use one of {allowed}",
        )


def _context(recipe: Recipe, target: Target, serving: Serving, facts: ModelFacts) -> Iterator[Problem]:
    """Of a length that the options ask for, and of requests that the benchmark will send."""
    given, most = asked.engine_args(recipe).get(target.name, {}), facts.max_context
    length, usual = serving.max_model_len, _usual_length(target)
    longer = any(part in name for name in given for part in _LENGTHENS)
    if length and most and length > most and length != usual and not longer:
        yield (
            asked.args_key(recipe, target.name),
            f"{length} tokens for one request are more than the {most} positions of {facts.id}; ask for at most {most}",
        )
    holds = min(filter(None, (length, None if longer else most)), default=None)
    if holds and target.name in asked.measured(recipe):
        yield from _requests(recipe, target, holds)


def _requests(recipe: Recipe, target: Target, holds: int) -> Iterator[Problem]:
    assert recipe.benchmark is not None, "what is measured is measured by it"
    for workload in recipe.benchmark.asked:
        longest = _longest(workload)
        if longest and longest > holds:
            yield (
                ("benchmark", "workload"),
                f"{workload.title}: requests have up to {longest} tokens with their answers, and {target.name} holds"
                f" {holds}; ask for less, or give its engine a longer context",
            )


def _usual_length(target: Target) -> int | None:
    """What the engine gives a request where nobody asks for a length."""
    module = plugins.load(engines, target.engine)
    planned: dict[str, Any] = module.planned(module.Options()) if hasattr(module, "planned") else {}
    return planned.get("max_model_len")


def _longest(workload: Workload) -> int | None:
    """Tokens of the longest request and its answer; None: drawn without a bound, or not known before it is read."""
    if workload.synthetic is None or workload.turns is not None:
        return None
    both = [_most(lengths) for lengths in (workload.synthetic.input_tokens, workload.synthetic.output_tokens)]
    if None in both:
        return None
    prefix = workload.shared_prefix.tokens if workload.shared_prefix else 0
    return int(sum(filter(None, both)) + prefix)


def _most(lengths: Any) -> float | None:
    if lengths.fixed is not None:
        return float(lengths.fixed)
    if lengths.uniform is not None:
        return float(lengths.uniform[1])
    return float(lengths.lognormal.max) if lengths.lognormal and lengths.lognormal.max else None


def _short(recipe: Recipe, target: Target, serving: Serving, facts: ModelFacts, rows: Rows | Unknown) -> Iterator[str]:
    """A target that holds less than a training row: the longest ones cannot be asked of it."""
    train, holds = recipe.train, context_length(facts, serving)
    known = rows.longest if isinstance(rows, Rows) and rows.longest else None
    trained = min(filter(None, (known, train.sequence_len)), default=None) if train else None
    if holds and trained and holds < trained:
        have = "have" if known else "may have"
        yield f"{target.name} gives one request {holds} tokens, and training rows {have} up to {trained}"


def _adapter_on_another_base(recipe: Recipe) -> Iterator[str]:
    """A QLoRA adapter has learned what its 4-bit base lacks."""
    names = [target.name for target in recipe.export if target.quantization == LORA]
    if names and recipe.train and recipe.train.adapter == "qlora":
        yield (
            f"{' and '.join(names)}: an adapter that was trained on 4-bit weights is served on the 16-bit base;"
            " adapter lora avoids the difference, a merged export does too"
        )
