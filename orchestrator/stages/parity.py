"""The parity stage: the same prompts through base + adapter as trained, the merged model, and the served exports.

The prompts are held-out rows, the `short` third of them and the `medium` others, and some questions after so many
earlier turns that they fill the context (`near_limit`). For `merged` and each target the metrics are, over all prompts
and for each of these buckets (`TARGET.BUCKET.kl_mean`): `kl_mean` and `kl_p99` (nats, over the first answer positions),
`logprob_diff` (mean |difference| of the answer tokens' log-probabilities), `exact_match` (share of greedy answers that
are the same) and `degenerate` (share that is broken in a way that the trained model's answer is not). Over all prompts:
`score_diff` (task score less that of the trained model, with `score_diff_low` and `score_diff_high`, a paired bootstrap
interval of 95 %), and as 1 or 0 `stops` (every greedy answer to a held-out row ended by itself). For a served target
also `prompt_tokens_identical`, `chat_template_identical` and `refused`, the number of prompts that it did not take.
`reference.stops`, `.degenerate` and `.score` are those of the trained model: where `reference.stops` is 0, none stops.

The merged model is compared over the full vocabulary. An engine tells only its likeliest tokens: its KL is computed
over these and one tail (`_divergence`), on the same prompt ids and the reference's own answer; its greedy answers go
through the chat endpoint, template and all. What an engine does not tell is not measured, and the report says why.
docs/parity.md says how to read the numbers.
"""

import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from orchestrator import engines, plugins
from orchestrator.config import Model
from orchestrator.engines import client, running
from orchestrator.engines.base import LORA
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.errors import EngineError, InputError
from orchestrator.stages import _compared as compared
from orchestrator.stages._compared import BUCKETS, MERGED, REFERENCE, Compared, Pair, Prompt, Task
from orchestrator.stages._divergence import kl_of_top, logprob_gap
from orchestrator.stages.base import Context, Outputs, Resources

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
WORKERS = ("parity", "prompts", "loading")
ON_ACCELERATOR = True
TASKS: tuple[str, ...] = get_args(Task)
"""Tasks of `evaluate` that answers can be scored by here."""
TOP = 100
BATCH_SIZE = 8
BATCH_TOKENS = 8192
"""Of prompts that fill the context: a server's cache holds as many, so does that of the reference."""
_TEMPLATE_MARGIN = 64
"""Tokens by which an engine's own tokenization of a prompt may be longer before it is refused."""


class Section(Model):
    """The `parity` section of a recipe."""

    prompts: int = Field(default=32, ge=1)
    """Held-out rows that are asked, evenly spaced over the data set; the shortest third of them is `short`."""
    near_limit_prompts: int = Field(default=4, ge=0)
    """Questions that are asked after so many earlier turns that they fill the context."""
    near_limit_tokens: int | None = Field(default=None, ge=1)
    """Context that these fill, with the answer; default: the longest that an export is served with in this recipe, at
    most the model's own."""
    positions: int = Field(default=8, ge=1)
    """First answer tokens whose distributions are compared."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens after which a greedy answer is cut."""


class Config(Section):
    """The section, and what the rest of the recipe adds to it."""

    contexts: dict[str, int | None] = {}
    """By target: tokens of context that a request gets where it is served; None: as many as the model has."""
    task: Task = "exact_match"
    """What the answers are scored by."""


def estimate(config: Config) -> Resources:
    """One core is reserved, so that warm engines fit beside it on a laptop; it computes on all that are idle."""
    return Resources(num_cpus=1)


def metric_names(config: Config) -> list[str]:
    """Every metric that a run of this configuration may have."""
    return compared.names(list(config.contexts))


def run(config: Config, context: Context) -> Outputs:
    """Raises EngineError when an export does not start on its engine."""
    reference, merged = _reference(config, context)
    prompts = [Prompt.model_validate(prompt) for prompt in reference["prompts"]]
    pairs = list(zip(prompts, merged, strict=True))
    metrics = compared.of_reference(prompts, config.task) | compared.of_model(MERGED, pairs, config.task)
    report: dict[str, Any] = {
        **_about(prompts, config),
        "comparison": {MERGED: "the full vocabulary"},
        "broken": {REFERENCE: compared.count_broken(map(compared.of_text, prompts))},
        "differing": {},
        "worst": {},
        "notes": _notes(context),
        "unmeasured": _unmeasured(MERGED, MERGED, pairs, metrics),
        "seconds": {},
    }
    _add(report, MERGED, pairs)
    for target in context.inputs["export"].report["targets"]:
        name, started = target["name"], time.monotonic()
        context.say(f"asking {name} on {target['engine']}")
        found, template = _ask(target, prompts, reference["positions"], config, context)
        pairs = list(zip(prompts, found, strict=True))
        same = None if template is None else template.strip() == reference["chat_template"].strip()
        own = compared.of_model(name, pairs, config.task) | compared.of_engine(name, pairs, same)
        metrics |= own
        report["unmeasured"] |= _unmeasured(name, target["engine"], pairs, own)
        report["comparison"][name] = _comparison(target["engine"], pairs)
        _add(report, name, pairs)
        report["seconds"][name] = time.monotonic() - started
    return Outputs(metrics=metrics, report=report)


def _add(report: dict[str, Any], name: str, pairs: Sequence[Pair]) -> None:
    """What is shown of every model: where it differs, and how."""
    report["broken"][name] = compared.count_broken(compared.broken(*pair) for pair in pairs)
    report["differing"][name] = compared.differing(pairs)
    report["worst"][name] = compared.worst(pairs)


def _reference(config: Config, context: Context) -> tuple[dict[str, Any], list[Compared]]:
    """What the trained model answers, and how the merged one differs."""
    data, train = context.inputs["data"].artifacts, context.inputs["train"].artifacts
    if "test_rows" not in data:
        raise InputError("there are no held-out rows to compare on", next_step="name them under test_datasets")
    result = context.worker(
        "parity",
        {
            "tuned": train.get("adapter") or train["model"],
            "merged": context.inputs["export"].artifacts["merged"],
            "rows": data["test_rows"],
            **config.model_dump(include={"prompts", "near_limit_prompts", "positions", "max_new_tokens"}),
            "context": config.near_limit_tokens or _longest(config.contexts.values()),
            "top": TOP,
            "batch_size": BATCH_SIZE,
            "batch_tokens": BATCH_TOKENS,
            "directory": str(context.directory),
        },
    )
    merged = [Compared.model_validate(entry) for entry in result["merged"]]
    return json.loads(Path(result["reference"]).read_text()), merged


def _ask(
    target: dict[str, Any], prompts: Sequence[Prompt], positions: int | None, config: Config, context: Context
) -> tuple[list[Compared], str | None]:
    """Start the target's engine for this; what it makes of each prompt, and its chat template."""
    needed = max(len(prompt.prompt_ids) for prompt in prompts) + config.max_new_tokens + _TEMPLATE_MARGIN
    options = plugins.load(engines, target["engine"]).options_for(min(needed, positions or needed))
    with running.engine(
        target["engine"],
        Path(target["path"]),
        options,
        alias=f"parity-{target['name']}",
        directory=context.directory,
        site=context.site,
        keeps_contract=False,  # measured here, prompt by prompt
    ) as served:
        found = []
        for number, prompt in enumerate(prompts, start=1):
            found.append(compare(served, prompt, config.max_new_tokens))
            if found[-1].refused:
                context.say(f"{target['name']} refused row {prompt.row} ({prompt.bucket}): {found[-1].refused}")
            context.emit("progress", step=number, steps=len(prompts))
        return found, served.engine.chat_template(served.launch)


def compare(served: Running, prompt: Prompt, max_new_tokens: int) -> Compared:
    """One prompt on a running engine against the reference's answer to it; a prompt that it refuses is no error.

    Raises EngineError where the engine fails, or computes NaN.
    """
    try:
        answer = served.chat(prompt.messages, Sampling(max_tokens=max_new_tokens))
        ids = served.engine.prompt_tokens(served.launch, prompt.messages)
        before = [[*prompt.prompt_ids, *prompt.answer_ids[:position]] for position in range(len(prompt.top))]
        told = [served.engine.next_token_logprobs(served.launch, tokens, TOP) for tokens in before]
    except client.RefusedError as error:
        return Compared(refused=error.message)
    _require_numbers(served, prompt, told)
    steps = list(zip(prompt.answer_ids, map(dict, prompt.top), told, strict=False)) if all(told) else []
    return Compared(
        kl=[kl_of_top(expected, found) for _, expected, found in steps],
        logprob_diff=[logprob_gap(token, expected, found) for token, expected, found in steps],
        told=min(map(len, told)),
        answer=answer.text,
        ended=answer.finish_reason == "stop",
        same_tokens=answer.prompt_tokens == len(prompt.prompt_ids) and ids in (None, prompt.prompt_ids),
    )


def _require_numbers(served: Running, prompt: Prompt, told: Sequence[Mapping[int, float | None]]) -> None:
    """JSON has no NaN: servers write null."""
    for position, listed in enumerate(told):
        if any(value is None or math.isnan(value) for value in listed.values()):
            raise EngineError(
                f"{served.launch.alias} computes no numbers (NaN) at token {position + 1} of its answer to row"
                f" {prompt.row}: the exported weights are damaged, or overflow in their number format",
                next_step="export it again; if it stays so, in a format with a wider range",
            )


def _longest(contexts: Collection[int | None]) -> int | None:
    """None: as long as the model's own."""
    known = [tokens for tokens in contexts if tokens is not None]
    return max(known) if known and len(known) == len(contexts) else None


def _about(prompts: Sequence[Prompt], config: Config) -> dict[str, Any]:
    """What was asked: prompts and their lengths in tokens by bucket."""
    lengths = {bucket: [len(p.prompt_ids) for p in prompts if p.bucket == bucket] for bucket in BUCKETS}
    return {
        "prompts": {bucket: len(found) for bucket, found in lengths.items()},
        "prompt_tokens": {bucket: [min(found), max(found)] for bucket, found in lengths.items() if found},
        "positions": config.positions,
        "max_new_tokens": config.max_new_tokens,
        "task": config.task,
    }


def _comparison(engine: str, pairs: Sequence[Pair]) -> str:
    """Over what the divergence of an engine's distributions was computed."""
    told = [found.told for _, found in pairs if found.told is not None]
    if not told:
        return "nothing: every prompt was refused"
    return (
        f"the {min(told)} likeliest tokens and one tail" if min(told) else f"nothing: {engine} tells no probabilities"
    )


def _unmeasured(name: str, engine: str, pairs: Sequence[Pair], measured: dict[str, float]) -> dict[str, str]:
    """Metrics that this target could have and does not have, each with the reason."""
    buckets = {prompt.bucket for prompt, _ in pairs}
    refused = all(found.refused is not None for _, found in pairs)
    reasons = {}
    for metric in compared.names([] if name == MERGED else [name]):
        owner, first, *_ = metric.split(".")
        if owner != name or metric in measured:
            continue
        if first in BUCKETS and first not in buckets:
            reasons[metric] = f"there is no {first} prompt: the held-out rows are too few, or the context is too short"
        elif refused:
            reasons[metric] = f"{engine} refused every prompt"
        elif first == "chat_template_identical":
            reasons[metric] = f"{engine} does not tell its chat template"
        else:
            reasons[metric] = (
                f"{engine} tells no log-probabilities; exact_match, degenerate and score_diff are measured"
            )
    return reasons


def _notes(context: Context) -> dict[str, str]:
    """By target: what is known to set it apart from the trained model."""
    training = context.inputs["train"].report.get("training", {})
    if training.get("method") != "qlora":
        return {}
    return {
        target["name"]: "The adapter was trained on the base in 4 bits and is served here on the base as it was before:"
        " a difference from the trained model is to be expected, and no fault of the engine. The merged model, whose"
        " base was dequantized from the 4 bits, has none."
        for target in context.inputs["export"].report["targets"]
        if target["quantization"] == LORA
    }
