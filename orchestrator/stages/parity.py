"""The parity stage: the same prompts through base + adapter as trained, the merged model, and the served exports.

Metrics, for `merged` and for each target: `kl_mean` and `kl_p99` (nats, over the first answer positions),
`logprob_diff` (mean |difference| of the answer tokens' log-probabilities), `exact_match` (share of greedy answers that
are the same); for a target also, as 1 or 0, `prompt_tokens_identical` (engine and tokenizer cut every prompt alike),
`chat_template_identical` and `stops` (every greedy answer ended by itself). `reference.stops` says the last of the
trained model: where it is 0, no export can stop.

The merged model is compared over the full vocabulary. An engine tells only its likeliest tokens: its KL is computed
over these and one tail (`_divergence`), on the same prompt ids and the reference's own answer; its greedy answers go
through the chat endpoint, template and all.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from orchestrator import engines, plugins
from orchestrator.config import Model
from orchestrator.engines import running
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.errors import InputError
from orchestrator.stages._divergence import kl_of_top, logprob_gap
from orchestrator.stages.base import Context, Outputs, Resources
from orchestrator.stats import mean, percentile

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
WORKERS = ("parity", "loading")
METRICS = (
    "*.kl_mean",
    "*.kl_p99",
    "*.logprob_diff",
    "*.exact_match",
    "*.prompt_tokens_identical",
    "*.chat_template_identical",
    "*.stops",
)
ON_ACCELERATOR = True
TOP = 100
BATCH_SIZE = 8
WORST = 5
_TEMPLATE_MARGIN = 64
"""Tokens by which an engine's own tokenization of a prompt may be longer before it is refused."""
Entry = dict[str, Any]


class Config(Model):
    """The `parity` section."""

    prompts: int = Field(default=32, ge=1)
    """Held-out rows that are asked, evenly spaced over the data set."""
    positions: int = Field(default=8, ge=1)
    """First answer tokens whose distributions are compared."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens after which a greedy answer is cut."""


def estimate(config: Config) -> Resources:
    """One core is reserved, so that warm engines fit beside it on a laptop; it computes on all that are idle."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Raises EngineError when an export does not start on its engine."""
    reference, merged = _reference(config, context)
    prompts = reference["prompts"]
    metrics = {"reference.stops": float(all(prompt["ended"] for prompt in prompts)), **_scores("merged", merged)}
    report: dict[str, Any] = {
        "prompts": len(prompts),
        "positions": config.positions,
        "comparison": {"merged": "full vocabulary", "engines": f"{TOP} likeliest tokens and one tail"},
        "worst": {"merged": _worst(prompts, merged)},
        "seconds": {},
    }
    for target in context.inputs["export"].report["targets"]:
        name, started = target["name"], time.monotonic()
        context.say(f"asking {name} on {target['engine']}")
        entries, template = _ask(target, reference, config, context)
        metrics |= _scores(name, entries) | _engine_scores(name, entries)
        metrics[f"{name}.chat_template_identical"] = float(template.strip() == reference["chat_template"].strip())
        report["worst"][name] = _worst(prompts, entries)
        report["seconds"][name] = time.monotonic() - started
    return Outputs(metrics=metrics, report=report)


def _reference(config: Config, context: Context) -> tuple[dict[str, Any], list[Entry]]:
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
            **config.model_dump(),
            "top": TOP,
            "batch_size": BATCH_SIZE,
            "directory": str(context.directory),
        },
    )
    return json.loads(Path(result["reference"]).read_text()), result["merged"]


def _ask(
    target: Mapping[str, Any], reference: Mapping[str, Any], config: Config, context: Context
) -> tuple[list[Entry], str]:
    """Start the target's engine for this; one entry per prompt, and the engine's chat template."""
    longest = max(len(prompt["prompt_ids"]) for prompt in reference["prompts"])
    options = plugins.load(engines, target["engine"]).options_for(longest + config.max_new_tokens + _TEMPLATE_MARGIN)
    with running.engine(
        target["engine"],
        Path(target["path"]),
        options,
        alias=f"parity-{target['name']}",
        directory=context.directory,
        site=context.site,
        keeps_contract=False,  # measured here, prompt by prompt
    ) as served:
        entries = []
        for number, prompt in enumerate(reference["prompts"], start=1):
            entries.append(compare(served, prompt, config.max_new_tokens))
            context.emit("progress", step=number, steps=len(reference["prompts"]))
        return entries, served.engine.chat_template(served.launch)


def compare(served: Running, prompt: Mapping[str, Any], max_new_tokens: int) -> Entry:
    """One prompt on a running engine against the reference's answer to it."""
    answer = served.chat(prompt["messages"], Sampling(max_tokens=max_new_tokens))
    ids = served.engine.prompt_tokens(served.launch, prompt["messages"])
    kl, gaps = [], []
    for position, listed in enumerate(prompt["top"]):
        expected = dict(listed)
        before = [*prompt["prompt_ids"], *prompt["answer_ids"][:position]]
        found = served.engine.next_token_logprobs(served.launch, before, TOP)
        kl.append(kl_of_top(expected, found))
        gaps.append(logprob_gap(prompt["answer_ids"][position], expected, found))
    return {
        "kl": kl,
        "logprob_diff": gaps,
        "exact": answer.text.strip() == prompt["text"],
        "answer": answer.text,
        "stopped": answer.finish_reason == "stop",
        "same_tokens": ids == prompt["prompt_ids"] and answer.prompt_tokens == len(ids),
    }


def _scores(name: str, entries: Sequence[Entry]) -> dict[str, float]:
    """The metrics that the merged model and every target have."""
    kl = [value for entry in entries for value in entry["kl"]]
    return {
        f"{name}.kl_mean": mean(kl),
        f"{name}.kl_p99": percentile(kl, 99),
        f"{name}.logprob_diff": mean([value for entry in entries for value in entry["logprob_diff"]]),
        f"{name}.exact_match": mean([float(entry["exact"]) for entry in entries]),
    }


def _engine_scores(name: str, entries: Sequence[Entry]) -> dict[str, float]:
    return {
        f"{name}.prompt_tokens_identical": float(all(entry["same_tokens"] for entry in entries)),
        f"{name}.stops": float(all(entry["stopped"] for entry in entries)),
    }


def _worst(prompts: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The prompts with the largest mean KL, for people to read."""
    pairs = sorted(zip(prompts, entries, strict=True), key=lambda pair: -mean(pair[1]["kl"]))[:WORST]
    return [
        {
            "row": prompt["row"],
            "prompt": "\n".join(turn["content"] for turn in prompt["messages"]),
            "reference": prompt["text"],
            "kl_mean": mean(entry["kl"]),
            **{key: entry[key] for key in ("exact", "answer", "stopped", "same_tokens") if key in entry},
        }
        for prompt, entry in pairs
    ]
