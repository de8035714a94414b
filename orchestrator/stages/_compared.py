"""What the trained model and an export answered to the same prompts, and the numbers that parity makes of it. Pure."""

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from orchestrator.config import Model
from orchestrator.stages._degenerate import KINDS, Kind, kinds
from orchestrator.stages._groundedness import ungrounded_claims
from orchestrator.stages.evaluate import normalised
from orchestrator.stats import bootstrap_interval, mean, percentile

Bucket = Literal["short", "medium", "near_limit"]
BUCKETS: tuple[Bucket, ...] = ("short", "medium", "near_limit")
Task = Literal["exact_match", "groundedness"]
MERGED, REFERENCE = "merged", "reference"
OF_BUCKET = ("kl_mean", "kl_p99", "logprob_diff", "exact_match", "degenerate")
OF_MODEL = (*OF_BUCKET, "score_diff", "score_diff_low", "score_diff_high", "stops")
OF_ENGINE = (*OF_MODEL, "prompt_tokens_identical", "chat_template_identical", "refused")
OF_REFERENCE = ("stops", "degenerate", "score")
WORST = 5


class Prompt(Model):
    """One prompt, and the trained model's greedy answer to it."""

    row: int
    """Of the held-out rows, from 0."""
    bucket: Bucket
    messages: list[dict[str, Any]]
    own: str
    """The answer that the row itself gives."""
    source: str
    """What an answer may rely on: the row's source, else its turns before the answer."""
    prompt_ids: list[int]
    answer_ids: list[int]
    ends_at: list[int]
    """Characters of `text` that are complete after each token of the answer."""
    text: str
    ended: bool
    """Whether the answer ended by itself."""
    top: list[list[tuple[int, float]]]
    """At each of the first answer tokens: the likeliest (token id, natural log-probability)."""


class Compared(Model):
    """What an export made of a prompt."""

    kl: list[float] = []
    """Nats, at each of the first tokens of the trained model's answer; empty where the engine tells nothing."""
    logprob_diff: list[float] = []
    """|difference| of that token's log-probability, nats."""
    told: int | None = None
    """Likeliest tokens that the engine told, at the position where it told the fewest; None: all of them."""
    answer: str = ""
    """Its own greedy answer."""
    ended: bool = False
    same_tokens: bool | None = None
    """Whether the engine made the same tokens of the prompt."""
    refused: str | None = None
    """The engine's words where it did not take the prompt; it has no numbers then."""


Pair = tuple[Prompt, Compared]


def names(targets: Sequence[str]) -> list[str]:
    """Every metric of a stage with these exports."""
    of_models = [(MERGED, OF_MODEL), *((target, OF_ENGINE) for target in targets)]
    return [
        *(f"{REFERENCE}.{metric}" for metric in OF_REFERENCE),
        *(f"{name}.{metric}" for name, metrics in of_models for metric in metrics),
        *(f"{name}.{bucket}.{metric}" for name, _ in of_models for bucket in BUCKETS for metric in OF_BUCKET),
    ]


def of_reference(prompts: Sequence[Prompt], task: Task) -> dict[str, float]:
    """The metrics of the trained model itself."""
    return {
        f"{REFERENCE}.stops": float(all(prompt.ended for prompt in prompts if prompt.bucket != "near_limit")),
        f"{REFERENCE}.degenerate": mean([float(bool(of_text(prompt))) for prompt in prompts]),
        f"{REFERENCE}.score": mean([_SCORES[task](prompt, prompt.text) for prompt in prompts]),
    }


def of_model(name: str, pairs: Sequence[Pair], task: Task) -> dict[str, float]:
    """The metrics of the merged model or of an export: over all prompts, by bucket, and against the rows' answers."""
    found = _of_bucket(name, pairs)
    for bucket in BUCKETS:
        if of := [pair for pair in pairs if pair[0].bucket == bucket]:
            found |= _of_bucket(f"{name}.{bucket}", of)
    differences = [_SCORES[task](p, _said(c)) - _SCORES[task](p, p.text) for p, c in pairs]
    low, high = bootstrap_interval(differences, mean)
    found |= {f"{name}.score_diff": mean(differences), f"{name}.score_diff_low": low, f"{name}.score_diff_high": high}
    stopped = [compared.ended for prompt, compared in pairs if prompt.bucket != "near_limit"]
    return found | {f"{name}.stops": float(all(stopped))}


def of_engine(name: str, pairs: Sequence[Pair], same_template: bool | None) -> dict[str, float]:
    """What only a running engine has: how it read the prompts."""
    read = [compared.same_tokens for _, compared in pairs if compared.refused is None]
    found = {f"{name}.refused": float(sum(compared.refused is not None for _, compared in pairs))}
    if read:
        found[f"{name}.prompt_tokens_identical"] = float(all(read))
    if same_template is not None:
        found[f"{name}.chat_template_identical"] = float(same_template)
    return found


def is_exact(prompt: Prompt, compared: Compared) -> bool:
    """The same text, and the same decision to end."""
    return compared.refused is None and (compared.answer.strip(), compared.ended) == (prompt.text, prompt.ended)


def first_difference(prompt: Prompt, compared: Compared) -> int | None:
    """Index of the trained model's first answer token that the export did not write as well; None: it wrote all."""
    answer = compared.answer.strip()
    if is_exact(prompt, compared):
        return None
    if answer == prompt.text:  # one of them went on, or was cut
        return len(prompt.answer_ids) - prompt.ended
    return bisect.bisect_right(prompt.ends_at, common_prefix(prompt.text, answer))


def common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common before they part."""
    both = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))


def of_text(prompt: Prompt) -> list[Kind]:
    """What is broken about the trained model's own answer; it cannot fail to end when it should."""
    return kinds(prompt.text, ended=prompt.ended, should_end=False)


def broken(prompt: Prompt, compared: Compared) -> list[Kind]:
    """What is broken about an export's answer that is not broken about the trained model's."""
    if compared.refused is not None:
        return []
    found = kinds(compared.answer, ended=compared.ended, should_end=prompt.ended)
    return [kind for kind in found if kind not in of_text(prompt)]


def count_broken(found: Iterable[list[Kind]]) -> dict[str, int]:
    """How many answers are broken in each way."""
    counted = Counter(kind for each in found for kind in each)
    return {kind: counted[kind] for kind in KINDS}


def worst(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """For people to read: prompts that were refused, then those with the largest divergence, then other answers."""
    ordered = sorted(pairs, key=lambda pair: (pair[1].refused is None, -_kl(pair[1]), is_exact(*pair)))
    return [_told(prompt, compared) for prompt, compared in ordered[:WORST]]


def differing(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The prompts with another answer, the earliest difference first."""
    found = [pair for pair in pairs if not is_exact(*pair)]
    ordered = sorted(found, key=lambda pair: (pair[1].refused is None, first_difference(*pair)))
    return [
        {
            "row": prompt.row,
            "bucket": prompt.bucket,
            "first_difference": first_difference(prompt, compared),
            "broken": broken(prompt, compared),
            "refused": compared.refused,
        }
        for prompt, compared in ordered
    ]


def _told(prompt: Prompt, compared: Compared) -> dict[str, Any]:
    return {
        "row": prompt.row,
        "bucket": prompt.bucket,
        "prompt": prompt.messages[-1]["content"],
        "turns_before": len(prompt.messages) - 1,
        "prompt_tokens": len(prompt.prompt_ids),
        "kl_mean": _kl(compared) if compared.kl else None,
        "exact": is_exact(prompt, compared),
        "first_difference": first_difference(prompt, compared),
        "answer_tokens": len(prompt.answer_ids),
        "reference": prompt.text,
        "reference_ended": prompt.ended,
        "answer": compared.answer.strip(),
        "shared": common_prefix(prompt.text, compared.answer.strip()),
        "ended": compared.ended,
        "same_tokens": compared.same_tokens,
        "broken": broken(prompt, compared),
        "refused": compared.refused,
    }


def _of_bucket(name: str, pairs: Sequence[Pair]) -> dict[str, float]:
    kl = [value for _, compared in pairs for value in compared.kl]
    gaps = [value for _, compared in pairs for value in compared.logprob_diff]
    divergence = {"kl_mean": mean(kl), "kl_p99": percentile(kl, 99), "logprob_diff": mean(gaps)} if kl else {}
    shares = {
        "exact_match": mean([float(is_exact(*pair)) for pair in pairs]),
        "degenerate": mean([float(bool(broken(*pair))) for pair in pairs]),
    }
    return {f"{name}.{metric}": value for metric, value in (divergence | shares).items()}


def _kl(compared: Compared) -> float:
    return mean(compared.kl) if compared.kl else 0.0


def _said(compared: Compared) -> str | None:
    return None if compared.refused is not None else compared.answer


def _exact_match(prompt: Prompt, answer: str | None) -> float:
    """As `evaluate` scores it."""
    return float(answer is not None and normalised(answer) == normalised(prompt.own))


def _grounded(prompt: Prompt, answer: str | None) -> float:
    """1 for an answer that claims nothing beyond its source."""
    return float(answer is not None and not ungrounded_claims(answer, prompt.source))


_SCORES: dict[Task, Callable[[Prompt, str | None], float]] = {"exact_match": _exact_match, "groundedness": _grounded}
