"""The settings of a workload, as a recipe's `benchmark.workload` and the command line spell them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from orchestrator.config import Model
from orchestrator.loadgen.workload.distributions import Distribution
from orchestrator.units import Seconds, Tokens


def _share(value: Any) -> Any:
    """`80%` is 0.8."""
    return float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else value


def _at_least_one(lengths: Distribution[Any] | None) -> Distribution[Any] | None:
    if lengths is not None and lengths.file is None and lengths.lognormal is None and lengths.least < 1:
        raise ValueError("must be at least 1")
    return lengths


class Synthetic(Model):
    """Made-up prompts of drawn lengths."""

    input_tokens: Distribution[Tokens] = Distribution[Tokens](fixed=Tokens(512))
    """Tokens of a prompt, the chat template and the nonce included; of the new text alone in a later turn."""
    output_tokens: Distribution[Tokens] = Distribution[Tokens](fixed=Tokens(128))
    """Tokens of an answer: exactly so many where the server accepts `ignore_eos`, else at most."""

    _checked = field_validator("input_tokens", "output_tokens")(_at_least_one)


class SharedPrefix(Model):
    """Some requests begin alike, as with a common system prompt; the nonce follows after it."""

    tokens: Tokens
    """Length of a prefix; it comes in front of the prompt's own tokens."""
    count: int = Field(1, ge=1, le=10_000)
    """Different prefixes; a request takes any of them."""
    share: Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)] = 1.0
    """Share of the requests, or sessions, that begin with a prefix: 0.8 or 80%."""


class Gamma(Model):
    """Gaps between arrivals that are gamma-distributed."""

    cv: float = Field(gt=0, le=20)
    """Standard deviation of the gaps over their mean: 1 is Poisson, more is burstier (vLLM's burstiness is 1/cv²)."""


class Bursts(Model):
    """Poisson arrivals for some time, then none, in turn; the rate is the mean over both."""

    on: Seconds
    """Length of a burst."""
    off: Seconds
    """Length of the pause after it."""

    @field_validator("on")
    @classmethod
    def _some_time(cls, on: Seconds) -> Seconds:
        if on <= 0:
            raise ValueError("a burst must last longer than 0 s")
        return on


class Arrivals(Model):
    """How requests come at a rate."""

    kind: Literal["poisson", "constant"] | None = None
    """A plain value means this."""
    gamma: Gamma | None = None
    """More or less bunched than Poisson."""
    bursts: Bursts | None = None
    """On and off."""

    @model_validator(mode="before")
    @classmethod
    def _plain_value(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(given is not None for given in (self.kind, self.gamma, self.bursts)) != 1:
            raise ValueError("give one of poisson, constant, {gamma: {cv: 2}} and {bursts: {on: 2s, off: 8s}}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"enum": ["poisson", "constant"]}, super().__get_pydantic_json_schema__(schema, handler)]}

    def __str__(self) -> str:
        if self.gamma is not None:
            return f"gamma, cv {self.gamma.cv:g}"
        return f"bursts of {self.bursts.on}, pauses of {self.bursts.off}" if self.bursts else str(self.kind)


class Workload(Model):
    """What is asked of the server: a dataset, synthetic prompts, or a trace."""

    name: str | None = Field(None, min_length=1)
    """In results and reports; by default after what it is."""
    dataset: str | None = None
    """A file of own prompts: JSON lines (chats, prompts, ShareGPT), a .json list of them, or .txt, a prompt a line."""
    synthetic: Synthetic | None = None
    """Made-up prompts of given lengths in the target's tokens."""
    trace: str | None = None
    """Recorded lengths and times: Azure's CSV or Mooncake's JSON lines."""
    tokenizer: str | None = None
    """A tokenizer.json, or a folder that has one, to measure lengths with; by default the server is asked."""
    output_tokens: Distribution[Tokens] | None = None
    """With a dataset: tokens of an answer, exactly where the server accepts `ignore_eos`. Default: up to max_tokens."""
    shared_prefix: SharedPrefix | None = None
    """Common beginnings, put before the prompts."""
    turns: Distribution[int] | None = None
    """Turns of a conversation; each holds the server's own earlier answers. Default: single requests."""
    think_time: Distribution[Seconds] | None = None
    """Pause between an answer and the next turn. Default: none."""
    models: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Models (LoRA adapters) by weight: each request, or session, asks one of them. Default: the target's own."""
    arrivals: Arrivals | None = None
    """How requests come at a rate; default: Poisson, or a trace's own times scaled to the rate."""
    trace_speed: float | None = Field(None, gt=0)
    """Replay a trace so many times quicker than it was recorded, where no rate is given."""
    trace_window: tuple[Seconds, Seconds] | None = None
    """Only what a trace has between these times after its first request."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many rows of a dataset or trace."""
    nonce: bool = True
    """Each request has a text of its own near its start, so that no prefix cache helps. false: caches may hit."""
    endpoint: Literal["chat", "completions"] | None = None
    """Which of the API's endpoints is asked; default: chat, where the model has a chat template."""

    _positive = field_validator("output_tokens", "turns")(_at_least_one)

    @field_validator("synthetic", "trace")
    @classmethod
    def _one_source(cls, value: Any, info: ValidationInfo) -> Any:
        others = [name for name in ("dataset", "synthetic") if info.data.get(name) is not None]
        if value is not None and others:
            raise ValueError(f"a workload has one source of prompts, and {others[0]} is another one")
        return value

    @field_validator("output_tokens")
    @classmethod
    def _of_a_dataset(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("synthetic") is not None:
            raise ValueError("synthetic prompts have their own: write synthetic.output_tokens")
        if value is not None and info.data.get("trace") is not None:
            raise ValueError("a trace has its own lengths of answers; leave out one of the two")
        return value

    @field_validator("shared_prefix", "turns")
    @classmethod
    def _not_with_a_trace(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("trace") is not None:
            raise ValueError("a trace is replayed as it was recorded; leave out one of the two")
        return value

    @field_validator("think_time")
    @classmethod
    def _between_turns(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("turns") is None:
            raise ValueError("a pause between turns needs `turns`")
        return value

    @field_validator("trace_speed", "trace_window")
    @classmethod
    def _with_a_trace(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("trace") is None:
            raise ValueError("needs a `trace`")
        if value is not None and info.field_name == "trace_speed" and info.data.get("arrivals") is not None:
            raise ValueError("the times are either the trace's, quicker, or come from `arrivals`")
        return value

    @field_validator("trace_window")
    @classmethod
    def _forwards(cls, value: tuple[Seconds, Seconds] | None) -> tuple[Seconds, Seconds] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError(f"a window goes from an earlier to a later time, not from {value[0]} to {value[1]}")
        return value

    @field_validator("limit")
    @classmethod
    def _of_rows(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("synthetic") is not None:
            raise ValueError("synthetic prompts have no end; the run's number of requests or duration limits them")
        return value

    @property
    def title(self) -> str:
        """Its name, or what it is in a few words."""
        if self.name is not None:
            return self.name
        if self.synthetic is not None:
            return f"{self.synthetic.input_tokens} in, {self.synthetic.output_tokens} out"
        source = self.dataset or self.trace
        return "default" if source is None else Path(source).name

    def files(self) -> Iterator[str]:
        """The files that it reads, as they are written in it."""
        lengths = [self.output_tokens, self.turns, self.think_time]
        if self.synthetic is not None:
            lengths += [self.synthetic.input_tokens, self.synthetic.output_tokens]
        given = [self.dataset, self.trace, self.tokenizer, *(each.file for each in lengths if each is not None)]
        yield from (name for name in given if name is not None)
