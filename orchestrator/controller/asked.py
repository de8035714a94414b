"""A recipe in the planner's words: its fine-tune, the tokens that it goes through, its serving targets and loads."""

import contextlib
import math
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import engines, plugins
from orchestrator.bench import sweep
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.documents import Key
from orchestrator.engines.base import LORA
from orchestrator.errors import InputError
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.forecast import GIB
from orchestrator.planner.layouts import Request
from orchestrator.planner.plan import PlannedStage
from orchestrator.planner.serving.formats import weight_format
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.training.finetune import FineTune
from orchestrator.planner.training.memory import memory
from orchestrator.planner.training.remedies import describe, smallest_change
from orchestrator.recipe.recipe import Recipe
from orchestrator.recipe.stages import stage_configs
from orchestrator.stages.base import local_path
from orchestrator.stages.prepare import Dataset
from orchestrator.stages.train import Config as Train
from orchestrator.stages.train import adapter_of
from orchestrator.store.store import Store

BYTES_PER_TOKEN = (3.0, 4.5, 7.0)
"""Of a chat row in JSON lines: other scripts and code, usual English, long words with much JSON around them."""
SAMPLE_BYTES = 2**20
"""Read of a file to tell how long its rows are."""
MOST_BITS = 16
"""Of a weight."""
SHARED_BY = "tensor_parallel_size"
"""The option by which engines that cut every layer are told over how many GPUs."""
EMBEDDINGS = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out"}
"""Modules to save that are counted as the embedding and the head together, as they are where the two are one."""
ASSUMED_INPUT = 512
"""Tokens of a prompt where only a benchmark of the real ones would tell; the load generator's own default."""


class Rows(NamedTuple):
    """Training rows, as far as they are known."""

    number: float
    """How many."""
    tokens: Estimate
    """Of all rows, once."""
    longest: int | None
    """Tokens; None: not known."""
    because: str
    """Where that is from."""


class Target(NamedTuple):
    """An export as a serving target."""

    name: str
    engine: str
    quantization: str
    serving: Serving | Unknown
    others: list[str]
    """Number formats that its engine could serve instead."""
    required: bool = True
    """Whether the run cannot do without it."""
    started: bool = True
    """Whether the run deploys or measures it, with these options."""


class Ask(NamedTuple):
    """One load of a benchmark."""

    concurrency: int | None
    rate: float | None
    request: Request


def fine_tune(recipe: Recipe, base: ModelFacts | Unknown, rows: Rows | Unknown) -> FineTune | Unknown | None:
    """As `workers/train.py` carries it out on an accelerator; Unknown where the planner does not know a setting that
    the libraries may well know: that is no reason to refuse it. None: nothing is trained."""
    if recipe.train is None:
        return None
    tune = _fine_tune(recipe.train, rows)
    if isinstance(base, Unknown):
        return tune
    try:
        memory(base, tune)
    except InputError as error:
        return Unknown(reason=f"unknown: {error.message}")
    return tune


def _fine_tune(train: Train, rows: Rows | Unknown) -> FineTune:
    extra = train.extra
    known = rows if isinstance(rows, Rows) and not train.sample_packing else None
    return FineTune(
        method=train.adapter,
        lora_r=train.lora_r,
        lora_dropout=train.lora_dropout,
        target_modules=train.lora_target_modules,
        train_embeddings=bool(set(train.lora_modules_to_save) & EMBEDDINGS),
        micro_batch_size=train.micro_batch_size,
        sequence_len=train.sequence_len,
        longest_row=known.longest if known else None,
        mean_row=max(1, round(known.tokens.value / known.number)) if known else None,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        packing=train.sample_packing,
        checkpointing="full" if extra.get("gradient_checkpointing", True) else "none",
        kernels="fused" if extra.get("use_liger_kernel") or extra.get("torch_compile") else "eager",
        loss="full" if extra.get("loss_type") == "dft" else "fused",
        optimizer=str(extra.get("optim", "adamw_torch_fused")),
    )


def remedy(model: ModelFacts, tune: FineTune, gpu: Gpu) -> str | None:
    """The smallest change that makes a fine-tune fit, as it is typed after the recipe; None: nothing does."""
    found = smallest_change(model, tune, gpu)
    typed = [(_typed(tune, one.tune), one) for one in found]
    for words, one in typed:
        if words:
            return f"{words}: needs {one.needed / GIB:.1f} GiB"
    return f"{describe(found)[0]} (not available yet)" if found else None


def _typed(before: FineTune, after: FineTune) -> str | None:
    """The changes as overrides of the recipe; None where one of them cannot be made there."""
    changed = [name for name in FineTune.model_fields if getattr(before, name) != getattr(after, name)]
    if not set(changed) <= {*_KEYS, "weights_dtype"}:
        return None
    values = {name: "true" if name == "checkpointing" else getattr(after, name) for name in changed}
    return " ".join(f"train.{_KEYS[name]}={value}" for name, value in values.items() if name in _KEYS)


_KEYS = {
    "method": "adapter",
    "micro_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "sequence_len": "sequence_len",
    "optimizer": "extra.optim",
    "checkpointing": "extra.gradient_checkpointing",
}
"""Fields of a FineTune -> keys of the `train` section; `weights_dtype` follows from the adapter."""


def train_tokens(train: Train, rows: Rows | Unknown) -> Estimate | Unknown:
    """Tokens that training goes through, all epochs; `max_steps` ends it earlier."""
    limit = None
    if train.max_steps:
        limit = train.max_steps * train.gradient_accumulation_steps * train.micro_batch_size
    if isinstance(rows, Unknown):
        if limit is None or not train.sample_packing:
            most = None if limit is None else float(limit * train.sequence_len)
            return Unknown(reason=rows.reason, high=most)
        return _exactly(limit * train.sequence_len, f"{limit:,} packed rows of {train.sequence_len:,} tokens")
    found = rows.tokens
    amounts = [min(amount, rows.number * train.sequence_len) * train.num_epochs for amount in _ends(found)]
    because = f"{rows.because}, {train.num_epochs:g} epochs"
    if limit is not None:
        row = [train.sequence_len] * 3 if train.sample_packing else [amount / rows.number for amount in _ends(found)]
        amounts = [min(amount, limit * each) for amount, each in zip(amounts, row, strict=True)]
        because += f", at most {train.max_steps:,} steps"
    low, value, high = amounts
    terms = [Term(name="tokens", amount=value, because=because)]
    return Estimate(unit="tokens", value=value, low=low, high=high, terms=terms)


def rows(
    datasets: list[Dataset], data: PlannedStage | None, store: Store, cwd: Path, kind: str = "train"
) -> Rows | Unknown:
    """From what the data stage has counted, else from the size of a local file of JSON lines."""
    made = store.finished_stage(data.digest) if data else None
    metrics = (made.outputs or {}).get("metrics", {}) if made else {}
    if metrics.get(f"{kind}_rows"):
        return _counted(metrics, kind)
    for dataset in datasets:
        if dataset.prepare:
            return Unknown(reason="unknown: the data set is not known until its prepare command has run")
        path = local_path(dataset.path, cwd)
        if path.is_file() and path.suffix == ".jsonl":
            return _sampled(path)
    return Unknown(reason="unknown: the data set's size is known once the data stage has read it")


def targets(recipe: Recipe) -> list[Target]:
    """Every export, with the options that its engine will run with."""
    options, served = engine_args(recipe), recipe.serve.target if recipe.serve else None
    started = {served, *measured(recipe)}
    return [
        Target(
            found.name,
            found.engine,
            found.quantization,
            _serving(found.engine, found.quantization, options.get(found.name, {}), recipe.train),
            _others(found.engine, found.quantization),
            required=found.required or found.name == served,
            started=found.name in started,
        )
        for found in recipe.export
    ]


def asks(recipe: Recipe, prompt: int | None) -> list[Ask]:
    """The loads of the benchmark, or 1, 8 and 64 requests at once; `prompt`: tokens of a held-out row, if known."""
    section = recipe.benchmark
    if section is None:
        request = Request(input_tokens=prompt or ASSUMED_INPUT, output_tokens=128)
        return [Ask(concurrency, None, request) for concurrency in (1, 8, 64)]
    found = [
        Ask(cell.concurrency, cell.rate, _request(cell.workload, section.max_tokens, prompt))
        for cell in sweep.cells(section, ["any"])
        if cell.concurrency or cell.rate
    ]
    if not found:
        request = _request(section.asked[0], section.max_tokens, prompt)
        found = [Ask(concurrency, None, request) for concurrency in (1, 8, 64)]
    return sorted(found, key=lambda ask: (ask.request.input_tokens, ask.rate or 0, ask.concurrency or 0))


def engine_args(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """By target: the options that its engine is started with; a target that is only compared has none."""
    configs = stage_configs(recipe)
    found: dict[str, dict[str, Any]] = {}
    if recipe.serve:
        engine = next((target.engine for target in recipe.export if target.name == recipe.serve.target), None)
        found = {target.name: recipe.serve.engine_args for target in recipe.export if target.engine == engine}
    return found | getattr(configs.get("benchmark"), "engine_args", {})


def on(engine: str, given: dict[str, Any], count: int) -> dict[str, Any]:
    """The options on so many accelerators: all of them share the model, unless the options say otherwise."""
    fields = plugins.load(engines, engine).Options.model_fields
    return {SHARED_BY: count, **given} if count > 1 and SHARED_BY in fields else given


def args_key(recipe: Recipe, target: str) -> Key:
    """Where the recipe has the options of a target's engine."""
    own = recipe.benchmark and target in recipe.benchmark.engine_args
    return ("benchmark", "engine_args", target) if own else ("serve", "engine_args")


def measured(recipe: Recipe) -> list[str]:
    """Targets that the benchmark sends requests to."""
    return list(getattr(stage_configs(recipe).get("benchmark"), "targets", []))


def _serving(engine: str, quantization: str, given: dict[str, Any], train: Train | None) -> Serving | Unknown:
    """An adapter is served on its base, which stays as wide as it was."""
    try:
        module = plugins.load(engines, engine)
        options: Model = module.Options(**given)
        planned = module.planned(options) if hasattr(module, "planned") else _same_names(options)
        if quantization != LORA:
            return Serving(engine=engine, quantization=quantization, **planned)
        adapter = adapter_of(train) if train else None
        held = {"lora_slots": 1, "lora_rank": adapter.rank if adapter else 16}
        return Serving(engine=engine, **(held | planned))
    except InputError as error:
        return Unknown(reason=f"unknown: {error.message}")


def _others(engine: str, quantization: str) -> list[str]:
    """Its other formats, each once, as far as the planner knows their bits; none of 32 bits, none for an adapter."""
    found: dict[str, str] = {}
    module = plugins.load(engines, engine)
    for name in getattr(module, "SUGGESTED", module.QUANTIZATIONS) if quantization != LORA else ():
        with contextlib.suppress(InputError):
            served = weight_format(name)
            if served != weight_format(quantization) and served.bits <= MOST_BITS:
                found.setdefault(served.name, name)
    return list(found.values())


def _same_names(options: Model) -> dict[str, Any]:
    names = set(type(options).model_fields) & set(Serving.model_fields)
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _request(workload: Workload, max_tokens: int, prompt: int | None) -> Request:
    if workload.synthetic is not None:
        return Request(
            input_tokens=_mean(workload.synthetic.input_tokens, ASSUMED_INPUT),
            output_tokens=_mean(workload.synthetic.output_tokens, max_tokens),
        )
    output = _mean(workload.output_tokens, max_tokens) if workload.output_tokens else max_tokens
    read = None if workload.dataset or workload.trace else prompt
    return Request(input_tokens=read or ASSUMED_INPUT, output_tokens=output)


def _mean(lengths: Any, default: int) -> int:
    if lengths.fixed is not None:
        return int(lengths.fixed)
    if lengths.uniform is not None:
        return int(sum(lengths.uniform) / 2)
    if lengths.lognormal is not None:
        return max(1, round(math.exp(lengths.lognormal.mu + lengths.lognormal.sigma**2 / 2)))
    return default


def _counted(metrics: dict[str, float], kind: str) -> Rows:
    """The data stage counts tokens of training rows; held-out ones are about as long."""
    train, count = metrics.get("train_rows", 0), metrics[f"{kind}_rows"]
    tokens = metrics.get("tokens", 0) * (count / train if train else 1)
    because = f"{count:,.0f} rows of {tokens / count:,.0f} tokens, counted by the data stage"
    longest = metrics.get("tokens_max")
    return Rows(count, _exactly(tokens, because), round(longest) if longest else None, because)


def _sampled(path: Path) -> Rows:
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    lines = max(1, sample.count(b"\n"))
    count = max(1.0, size / (len(sample) / lines)) if sample else 1.0
    wide, usual, narrow = BYTES_PER_TOKEN
    because = (
        f"{size:,} bytes of {path.name}, about {count:,.0f} rows, {usual:g} bytes a token ({wide:g} to {narrow:g})"
    )
    terms = [Term(name="tokens", amount=size / usual, because=because)]
    tokens = Estimate(unit="tokens", value=size / usual, low=size / narrow, high=size / wide, terms=terms)
    return Rows(count, tokens, None, because)


def _exactly(amount: float, because: str) -> Estimate:
    terms = [Term(name="tokens", amount=amount, because=because)]
    return Estimate(unit="tokens", value=amount, low=amount, high=amount, terms=terms)


def _ends(found: Estimate) -> tuple[float, float, float]:
    return found.low, found.value, found.high
