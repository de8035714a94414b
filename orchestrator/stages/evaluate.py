"""The evaluate stage: the base model against the tuned one on the held-out rows.

`exact_match`: the share of answers that equal the row's last turn as a whole, once case and runs of white space are
ignored; a row counts as missed when the answer was cut at max_new_tokens and differs. `exact_match.majority` is what
always giving the most frequent reference would score. `groundedness`: answers with at least one ungrounded claim per
1,000 (see `_groundedness`), against the row's `source`, else against its other turns. `perplexity`: over the
assistant's tokens. Intervals are 95 % bootstrap intervals over rows.

Leaves out: tasks of other harnesses, answers that are judged by a model.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from orchestrator import jsonlines
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.stages._groundedness import ungrounded_claims
from orchestrator.stages.base import Context, Outputs, Resources
from orchestrator.stats import bootstrap_interval, mean

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
WORKERS = ("evaluate", "loading")
METRICS = (
    "exact_match",
    "exact_match.base",
    "exact_match.gain",
    "exact_match.majority",
    "groundedness.per_1000",
    "groundedness.per_1000.low",
    "groundedness.per_1000.high",
    "groundedness.base.per_1000",
    "perplexity",
    "perplexity.base",
)
ON_ACCELERATOR = True
SAMPLES = 10
Row = dict[str, Any]
Entry = dict[str, Any]


class Task(Model):
    """One measurement."""

    task: Literal["exact_match", "groundedness", "perplexity"]
    """What is measured."""
    dataset: Literal["test"] = "test"
    """Which rows: `test` are the held-out ones."""
    limit: int | None = Field(default=None, ge=1)
    """Rows that are used, evenly spaced over the data set; all of them by default."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens after which an answer is cut."""
    batch_size: int = Field(default=16, ge=1)
    """Rows that are computed together."""

    @field_validator("task", mode="before")
    @classmethod
    def _available(cls, value: Any) -> Any:
        if value == "lm_eval":
            raise ValueError("task lm_eval is not available yet; use exact_match, groundedness or perplexity")
        return value

    def generation(self) -> dict[str, Any]:
        """What the answers depend on; tasks that agree here share them."""
        return {"limit": self.limit, "max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}


class Config(Model):
    """The `evaluate` section."""

    tasks: list[Task] = Field(min_length=1)
    """Each kind once; the recipe sees to that."""

    def of(self, kind: str) -> Task | None:
        """The task of that kind."""
        return next((task for task in self.tasks if task.task == kind), None)


def estimate(config: Config) -> Resources:
    """One core is reserved, so that warm engines fit beside it on a laptop; it computes on all that are idle."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Generate with both models, then score."""
    data, train = context.inputs["data"].artifacts, context.inputs["train"].artifacts
    if "test_rows" not in data:
        raise InputError("there are no held-out rows to evaluate on", next_step="name them under test_datasets")
    generations = _generations(config)
    perplexity = config.of("perplexity")
    result = context.worker(
        "evaluate",
        {
            "tuned": train.get("adapter") or train["model"],
            "rows": data["test_rows"],
            "tokens": data["test"] if perplexity else None,
            "generations": generations,
            "perplexities": [{"limit": perplexity.limit, "batch_size": perplexity.batch_size}] if perplexity else [],
            "directory": str(context.directory),
        },
    )
    rows = jsonlines.read(Path(data["test_rows"]))
    answers = [jsonlines.read(Path(path)) for path in result["answers"]]
    metrics, report = _perplexities(result["perplexities"]), dict[str, Any](device=result["device"])
    for kind, score in (("exact_match", score_exact_match), ("groundedness", score_groundedness)):
        task = config.of(kind)
        if task is not None:
            found, about = score(rows, answers[generations.index(task.generation())])
            metrics, report[kind] = metrics | found, about
    if answers:
        _warn_of_cut_answers(answers[0], context)
        report["samples"] = samples(rows, answers[0])
        report["answers_ended"] = {side: _share(answers[0], f"{side}_ended") for side in ("base", "tuned")}
    return Outputs(metrics=metrics, report=report)


def score_exact_match(rows: Sequence[Row], entries: Sequence[Entry]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics `exact_match*`, and the intervals."""
    references = [normalised(_reference(rows[entry["row"]])) for entry in entries]
    hits = {
        side: [float(normalised(entry[side]) == wanted) for entry, wanted in zip(entries, references, strict=True)]
        for side in ("base", "tuned")
    }
    gains = [tuned - base for base, tuned in zip(hits["base"], hits["tuned"], strict=True)]
    common, count = Counter(references).most_common(1)[0]
    metrics = {
        "exact_match": mean(hits["tuned"]),
        "exact_match.base": mean(hits["base"]),
        "exact_match.gain": mean(gains),
        "exact_match.majority": count / len(references),
    }
    intervals = {
        "exact_match": bootstrap_interval(hits["tuned"], mean),
        "exact_match.base": bootstrap_interval(hits["base"], mean),
        "exact_match.gain": bootstrap_interval(gains, mean),
    }
    return metrics, {"rows": len(entries), "majority_answer": common, "intervals": intervals}


def score_groundedness(rows: Sequence[Row], entries: Sequence[Entry]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics `groundedness*` (answers per 1,000), and the tuned model's first ungrounded claims."""
    found = {
        side: [ungrounded_claims(entry[side], _source(rows[entry["row"]])) for entry in entries]
        for side in ("base", "tuned")
    }
    flags = {side: [1000.0 * bool(claims) for claims in listed] for side, listed in found.items()}
    low, high = bootstrap_interval(flags["tuned"], mean)
    metrics = {
        "groundedness.per_1000": mean(flags["tuned"]),
        "groundedness.per_1000.low": low,
        "groundedness.per_1000.high": high,
        "groundedness.base.per_1000": mean(flags["base"]),
    }
    examples = [{"row": entry["row"], "claims": c} for entry, c in zip(entries, found["tuned"], strict=True) if c]
    return metrics, {"rows": len(entries), "ungrounded": examples[:SAMPLES]}


def samples(rows: Sequence[Row], entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """About SAMPLES answers, evenly spaced, for people to read."""
    chosen = entries[:: max(1, len(entries) // SAMPLES)][:SAMPLES]
    return [
        {
            "row": entry["row"],
            "prompt": "\n".join(turn["content"] for turn in rows[entry["row"]]["messages"][:-1]),
            "reference": _reference(rows[entry["row"]]),
            "base": entry["base"],
            "tuned": entry["tuned"],
        }
        for entry in chosen
    ]


def normalised(text: str) -> str:
    """Case and runs of white space ignored."""
    return " ".join(text.casefold().split())


def _generations(config: Config) -> list[dict[str, Any]]:
    """The distinct sets of answers that the tasks need."""
    wanted = [task.generation() for task in config.tasks if task.task != "perplexity"]
    return [made for index, made in enumerate(wanted) if made not in wanted[:index]]


def _perplexities(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {"perplexity": found[0]["tuned"], "perplexity.base": found[0]["base"]} if found else {}


def _reference(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def _source(row: Row) -> str:
    """What the answer may rely on: the row's own source, else the turns before it."""
    return str(row.get("source") or "\n".join(turn["content"] for turn in row["messages"][:-1]))


def _warn_of_cut_answers(entries: Sequence[Entry], context: Context) -> None:
    cut = sum(not entry["tuned_ended"] for entry in entries)
    if cut:
        context.say(f"{cut} of {len(entries)} tuned answers were cut at max_new_tokens; raise it")


def _share(entries: Sequence[Entry], key: str) -> float:
    return mean([float(entry[key]) for entry in entries])
