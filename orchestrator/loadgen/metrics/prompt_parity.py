"""Prompt-token parity: whether two targets counted the same number of tokens for the same prompts.

Another chat template, a second begin-of-text token or another tokenizer makes one engine read more tokens than the
other, and the comparison of their speed is then one of two workloads. The same prompt has the same number in both
measurements; only its nonce differs, which may shift a count by a token or two. So a prompt's count is the median over
the times that it was sent, and a mean difference near zero with a low exact share is the nonces' doing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from orchestrator.loadgen.record import Record
from orchestrator.stats import mean

UNIT = "tokens"


@dataclass(frozen=True)
class Parity:
    """How the counts of one target, `b`, differ from those of another, `a`."""

    prompts: int
    """Prompts that both counted."""
    exact_share: float
    """Share of them with the same count, 0..1."""
    mean_difference: float
    """Mean of (count of b - count of a), tokens."""
    mean_tokens: float
    """Mean count of a."""
    largest_difference: float
    """The difference that is farthest from zero, tokens."""


def compare(a: Iterable[Record], b: Iterable[Record]) -> Parity | None:
    """The parity over the prompts that both targets counted; None if there is none.

    Later turns of a conversation are left out, since they hold the server's own answers.
    """
    counts, others = _counts(a), _counts(b)
    shared = counts.keys() & others.keys()
    if not shared:
        return None
    differences = [others[prompt] - counts[prompt] for prompt in shared]
    return Parity(
        prompts=len(shared),
        exact_share=differences.count(0) / len(shared),
        mean_difference=mean(differences),
        mean_tokens=mean([counts[prompt] for prompt in shared]),
        largest_difference=max(differences, key=abs),
    )


def _counts(records: Iterable[Record]) -> Mapping[int, float]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for record in records:
        if record.prompt >= 0 and record.turn == 0 and record.prompt_tokens is not None:
            found[record.prompt].append(record.prompt_tokens)
    return {prompt: median(counts) for prompt, counts in found.items()}
