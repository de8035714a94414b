"""From a workload's settings to requests that are ready to be sent.

    prepared = build(Workload.model_validate({"synthetic": {"input_tokens": 512}}), server, seed=17, mode="closed")
    drive.measure(Load(url=server.url, path=prepared.path, concurrency=8, num_requests=64), prepared.requests, ...)

The same settings, seed and server give the same requests, but for `salt` and what replaces the nonces. More requests or
another rate change none of the prompts with the same numbers.
"""

import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from orchestrator.errors import InputError
from orchestrator.loadgen import arrivals
from orchestrator.loadgen.probe import PATHS, Endpoint, Server
from orchestrator.loadgen.requests import NONCE
from orchestrator.loadgen.workload.bodies import Requests, Sampling, mixed
from orchestrator.loadgen.workload.facts import facts_of
from orchestrator.loadgen.workload.prompts import DatasetTalks
from orchestrator.loadgen.workload.site import Site, Source, check_models
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.loadgen.workload.synthetic import SyntheticTalks, fitted
from orchestrator.loadgen.workload.talk import Messages, Talk
from orchestrator.loadgen.workload.trace import TraceTalks

__all__ = ["Prepared", "Workload", "build"]

DISTINCT = 512
"""Distinct requests of a closed loop that has no number of its own: it goes round them, with new nonces."""
MOST_TOKENS = 16_000_000
"""Of all prompts of a closed loop, some 80 MB of text; long prompts make for fewer distinct ones."""


@dataclass(frozen=True)
class Prepared:
    """Requests, and what they really are."""

    requests: Requests
    """Made anew each time they are gone through; a closed loop goes round."""
    facts: dict[str, Any]
    """Plain data for a result."""
    endpoint: Endpoint

    @property
    def path(self) -> str:
        """Of the endpoint, as `Load.path` takes it."""
        return PATHS[self.endpoint]


def build(
    workload: Workload,
    server: Server,
    *,
    seed: int,
    mode: Literal["closed", "open"],
    rate: float | None = None,
    duration_s: float | None = None,
    num_requests: int | None = None,
    max_tokens: int = 128,
    temperature: float = 0.0,
    cwd: Path = Path(),
    default_prompts: Sequence[Messages] | None = None,
    salt: str | None = None,
) -> Prepared:
    """The requests of a workload for a server; files are found from `cwd` on.

    `rate` (requests/s), `duration_s` and `num_requests` count the warm-up in. A closed loop has no times, takes as many
    distinct requests as there are rows, or `num_requests` or DISTINCT, and is gone round. An open loop has a time for
    each; a trace without a rate keeps its own. `default_prompts` are used where the workload names no source; without
    them 512 tokens in and 128 out. `salt` is what makes shared texts unknown to a cache; by default it is chance.
    """
    assert mode == "open" or rate is None, "a closed loop has no rate"
    check_models(workload, server)
    site = Site(workload, server, seed, cwd, salt or "".join(secrets.choice("0123456789") for _ in NONCE))
    source = site.source(default_prompts, rate)
    starts = None
    if mode == "closed":
        talks = _closed(site, source, num_requests)
    else:
        talks, starts = _open(site, source, rate, duration_s, num_requests)
    turns = sum(len(talk.turns) for talk in talks)
    if isinstance(source, SyntheticTalks) and site.longest is not None:
        prefix = int(workload.shared_prefix.tokens) if workload.shared_prefix else 0
        talks = [fitted(talk, prefix_tokens=prefix, longest=site.longest) for talk in talks]
    models = mixed(workload.models, len(talks), site.rng("models")) if workload.models else None
    accepts, besides = server.accepts_ignore_eos, server.request_fields
    sampling = Sampling(site.endpoint, server.model, max_tokens, temperature, accepts, besides)
    requests = Requests(talks, starts, models, sampling)
    facts = facts_of(site, source, requests) | {"turns_cut": turns - len(requests)}
    return Prepared(requests, facts, site.endpoint)


def _closed(site: Site, source: Source, num_requests: int | None) -> list[Talk]:
    """Distinct talks, without times."""
    rows = len(source.rows) if isinstance(source, DatasetTalks) and source.turns is None else None
    wanted = num_requests or site.workload.limit or rows or DISTINCT
    taken, requests, size = [], 0, 0
    for talk in itertools.islice(source.talks(), rows):
        taken.append(talk)
        requests += len(talk.turns)
        size += sum(turn.input_tokens or 0 for turn in talk.turns)
        if requests >= wanted or size >= MOST_TOKENS:
            break
    return taken


def _open(
    site: Site, source: Source, rate: float | None, duration_s: float | None, num_requests: int | None
) -> tuple[list[Talk], list[float]]:
    """Talks and when each begins."""
    spec = site.workload.arrivals
    if isinstance(source, TraceTalks) and spec is None:
        own = (talk for talk in source.talks() if duration_s is None or (talk.at or 0.0) < duration_s)
        talks = list(itertools.islice(own, num_requests))
        return talks, [talk.at or 0.0 for talk in talks]
    if rate is None:
        raise InputError("an open loop needs a rate, in requests/s", next_step="give request_rate, or a trace")
    endless = itertools.cycle(source.talks()) if isinstance(source, TraceTalks) else source.talks()
    first = list(itertools.islice(endless, DISTINCT if site.workload.turns else 1))
    turns = fmean(len(talk.turns) for talk in first)
    if num_requests is None and duration_s is None:
        num_requests = DISTINCT
    count = None if num_requests is None else max(1, round(num_requests / turns))
    starts = arrivals.until(_times(site, rate / turns), duration_s=duration_s, count=count)
    return list(itertools.islice(itertools.chain(first, endless), len(starts))), starts


def _times(site: Site, rate: float) -> Iterator[float]:
    spec, rng = site.workload.arrivals, site.rng("arrivals")
    if spec is not None and spec.gamma is not None:
        return arrivals.gamma(rate, spec.gamma.cv, rng)
    if spec is not None and spec.bursts is not None:
        return arrivals.bursts(rate, spec.bursts.on, spec.bursts.off, rng)
    return arrivals.constant(rate) if spec and spec.kind == "constant" else arrivals.poisson(rate, rng)
