"""Where a workload's settings meet its files and its server: makes the source of its talks."""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.loadgen import tokens
from orchestrator.loadgen.probe import Endpoint, Server
from orchestrator.loadgen.workload.distributions import Distribution, Draw
from orchestrator.loadgen.workload.prefix import Prefixes
from orchestrator.loadgen.workload.prompts import DatasetTalks, read_prompts
from orchestrator.loadgen.workload.spec import Synthetic, Workload
from orchestrator.loadgen.workload.synthetic import SyntheticTalks
from orchestrator.loadgen.workload.talk import Messages
from orchestrator.loadgen.workload.trace import TraceTalks, read_trace
from orchestrator.units import Tokens

Source = DatasetTalks | SyntheticTalks | TraceTalks


@dataclass(frozen=True)
class Site:
    """What the parts of one workload are made with."""

    workload: Workload
    server: Server
    seed: int
    cwd: Path
    salt: str

    def rng(self, purpose: str) -> random.Random:
        """Chance of its own for each purpose: another setting elsewhere changes none of the draws here."""
        return random.Random(f"{self.seed}:{purpose}")

    @property
    def endpoint(self) -> Endpoint:
        """The workload's, else what the server has."""
        return self.workload.endpoint or self.server.endpoint

    @property
    def longest(self) -> int | None:
        """Tokens that a request may have, its answer included."""
        return self.server.max_model_len

    @property
    def tokenizer(self) -> Path | None:
        """A local one, where the workload names it."""
        name = self.workload.tokenizer
        return None if name is None else self.path(name)

    @functools.cached_property
    def vocabulary(self) -> tokens.Vocabulary:
        """Words of the target's tokenizer; asks the server when it is first used."""
        nonce = self.workload.nonce
        return tokens.vocabulary_of(self.server, self.endpoint, tokenizer=self.tokenizer, nonce=nonce)

    @functools.cached_property
    def passages(self) -> tokens.Passages:
        """Texts of wanted lengths."""
        return tokens.Passages(self.vocabulary, self.seed)

    @functools.cached_property
    def prefixes(self) -> Prefixes | None:
        """The common beginnings."""
        spec = self.workload.shared_prefix
        if spec is None:
            return None
        salt = self.salt if self.workload.nonce else ""
        rng = self.rng("prefixes")
        return Prefixes(self.passages, self.vocabulary, int(spec.tokens), spec.count, spec.share, salt, rng)

    def path(self, name: str) -> Path:
        """Of a file that the workload names."""
        return self.cwd / Path(name).expanduser()

    def lengths(self, distribution: Distribution[Any] | None, purpose: str) -> Callable[[], int] | None:
        """Draws whole numbers, at least 1."""
        if distribution is None:
            return None
        draw = distribution.draw(self.rng(purpose), self.cwd)
        return lambda: max(1, round(draw()))

    def source(self, default_prompts: Sequence[Messages] | None, rate: float | None) -> Source:
        """The talks that the workload asks for."""
        if self.workload.trace is not None:
            return self._trace(self.path(self.workload.trace), rate)
        if self.workload.dataset is not None:
            return self._dataset(read_prompts(self.path(self.workload.dataset), limit=self.workload.limit))
        if self.workload.synthetic is None and default_prompts:
            return self._dataset(default_prompts[: self.workload.limit])
        return self._synthetic(self.workload.synthetic or _usual(self.longest))

    def _trace(self, path: Path, rate: float | None) -> TraceTalks:
        window = self.workload.trace_window
        rows = read_trace(path, limit=self.workload.limit, window=window)
        pace = self.workload.trace_speed or 1.0
        if rate is not None and self.workload.arrivals is None:
            lasted = rows[-1].at - rows[0].at
            pace = rate * lasted / (len(rows) - 1) if lasted > 0 else 1.0
        kept = [row for row in rows if self.longest is None or row.input_tokens + row.output_tokens <= self.longest]
        if not kept:
            raise InputError(
                f"every request of {path} is longer than the {self.longest} tokens that the server takes",
                next_step="serve the model with a longer context (max_model_len), or take another trace",
            )
        return TraceTalks(
            kept, self.passages, self.vocabulary, self.workload.nonce, self.salt, pace, left_out=len(rows) - len(kept)
        )

    def _dataset(self, rows: Sequence[Messages]) -> DatasetTalks:
        return DatasetTalks(
            rows,
            self.seed,
            nonce=self.workload.nonce,
            prefixes=self.prefixes,
            turns=self.lengths(self.workload.turns, "turns"),
            think=self._think(),
            output=self.lengths(self.workload.output_tokens, "output"),
        )

    def _synthetic(self, spec: Synthetic) -> SyntheticTalks:
        into, out = self.lengths(spec.input_tokens, "input"), self.lengths(spec.output_tokens, "output")
        assert into is not None, "it has a default"
        assert out is not None, "it has a default"
        return SyntheticTalks(
            self.passages,
            self.vocabulary,
            input=into,
            output=out,
            nonce=self.workload.nonce,
            turns=self.lengths(self.workload.turns, "turns"),
            think=self._think(),
            prefixes=self.prefixes,
        )

    def _think(self) -> Draw | None:
        pause = self.workload.think_time
        return None if pause is None else pause.draw(self.rng("think"), self.cwd)


def _usual(longest: int | None) -> Synthetic:
    """512 tokens in and 128 out, less where the server takes less."""
    room = longest or 1024
    into, out = min(512, room * 3 // 5), min(128, room // 5)
    return Synthetic(input_tokens=Distribution(fixed=Tokens(into)), output_tokens=Distribution(fixed=Tokens(out)))


def check_models(workload: Workload, server: Server) -> None:
    """Raises InputError for a model of the mix that the server does not list."""
    unknown = [name for name in workload.models if server.models and name not in server.models]
    if unknown:
        raise InputError(
            f"the server at {server.url} has no model {', '.join(map(repr, unknown))}, which the workload mixes in",
            next_step=f"it has {', '.join(server.models)}",
        )
