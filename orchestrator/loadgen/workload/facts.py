"""What the requests of a workload really are, as plain data for a result."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from orchestrator.loadgen import tokens
from orchestrator.loadgen.workload.bodies import Requests
from orchestrator.loadgen.workload.prompts import DatasetTalks
from orchestrator.loadgen.workload.site import Site, Source
from orchestrator.loadgen.workload.trace import TraceTalks

_SAMPLED_PROMPTS, _SAMPLED_CHARACTERS = 64, 20_000


def facts_of(site: Site, source: Source, requests: Requests) -> dict[str, Any]:
    """Counts, mean lengths in tokens as wanted, what counted them, shares, times and seeds."""
    spec, turns = site.workload, [turn for talk in requests.talks for turn in talk.turns]
    conversations = [talk for talk in requests.talks if len(talk.turns) > 1]
    pauses = [turn.think_s for talk in conversations for turn in talk.turns[1:]]
    return {
        "kind": _kind(source, named=spec.dataset is not None),
        "title": spec.title,
        "file": spec.dataset or spec.trace,
        "seed": site.seed,
        "endpoint": site.endpoint,
        "requests": len(turns),
        "prompts": len({turn.prompt for turn in turns}),
        "sessions": len(requests.talks) if spec.turns else 0,
        "turns_mean": fmean(len(talk.turns) for talk in requests.talks) if spec.turns else None,
        "think_time_mean_s": fmean(pauses) if pauses else None,
        **_lengths(site, source, requests),
        "nonce": spec.nonce,
        "shared_prefix": _prefix(site, requests),
        "models": dict(Counter(requests.models).most_common()) if requests.models else {},
        **_times(site, source, requests),
    }


def _kind(source: Source, *, named: bool) -> str:
    if isinstance(source, DatasetTalks):
        return "dataset" if named else "default prompts"
    return "trace" if isinstance(source, TraceTalks) else "synthetic"


def _lengths(site: Site, source: Source, requests: Requests) -> dict[str, Any]:
    turns = [turn for talk in requests.talks for turn in talk.turns]
    out = _mean(turn.output_tokens for turn in turns)
    found: dict[str, Any] = {
        "output_tokens_mean": out,
        "output_exact": out is not None and requests.sampling.ignore_eos,
        "max_tokens": requests.sampling.max_tokens if out is None else None,
    }
    if isinstance(source, DatasetTalks):
        return found | _sampled(site, source)
    vocabulary, wanted = site.vocabulary, [turn.input_tokens or 0 for turn in turns]
    return found | {
        "input_tokens_mean": _mean(wanted),
        "input_tokens_min": min(wanted),
        "input_tokens_max": max(wanted),
        "input_exact": vocabulary.exact and vocabulary.overhead_known,
        "input_residual": vocabulary.residual,
        "tokenizer": vocabulary.counted_by,
        "overhead_tokens": vocabulary.overhead,
        "shorter_than_overhead": sum(
            (talk.turns[0].input_tokens or 0) < vocabulary.overhead for talk in requests.talks
        ),
    }


def _sampled(site: Site, source: DatasetTalks) -> dict[str, Any]:
    """Own prompts are as long as they are; the mean of some, where counting is cheap."""
    count, name = tokens.cheap_counter(site.server, site.tokenizer)
    texts = ["\n".join(message["content"] for message in row) for row in source.rows[:_SAMPLED_PROMPTS]]
    sample = _some(texts)
    mean = count("\n".join(sample)) / len(sample) if count and sample else None
    return {"input_tokens_mean": mean, "input_exact": False, "tokenizer": name, "sampled_prompts": len(sample)}


def _some(texts: Sequence[str]) -> list[str]:
    """As many of the first texts as are counted quickly; at least one."""
    taken: list[str] = []
    size = 0
    for text in texts:
        size += len(text)
        if taken and size > _SAMPLED_CHARACTERS:
            break
        taken.append(text)
    return taken


def _prefix(site: Site, requests: Requests) -> dict[str, Any] | None:
    with_prefix = sum(talk.prefix >= 0 for talk in requests.talks)
    share = with_prefix / len(requests.talks) if requests.talks else 0.0
    spec = site.workload.shared_prefix
    if spec is not None:
        salt = site.salt if site.workload.nonce else None
        return {"tokens": int(spec.tokens), "count": spec.count, "share": share, "salt": salt}
    return {"share": share, "salt": site.salt} if with_prefix else None


def _times(site: Site, source: Source, requests: Requests) -> dict[str, Any]:
    pace = {"left_out": source.left_out, "trace_speed": source.pace} if isinstance(source, TraceTalks) else {}
    if requests.starts is None:
        return {"arrivals": None, **pace}
    own = "of the trace" if isinstance(source, TraceTalks) else "poisson"
    lasts = requests.starts[-1] if requests.starts else 0.0
    return {
        "arrivals": str(site.workload.arrivals or own),
        "arrivals_last_s": lasts,
        "rate_mean": len(requests) / lasts if lasts > 0 else None,
        **pace,
    }


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
