"""Short spellings of `orch bench run`'s options, turned into what a recipe's `benchmark` section would say; pure.

-c 1,8,64   --slo ttft=500ms,tpot=50ms   --input-tokens 512 | 100-500 | lognormal:400,0.8 | file:lengths.txt
--shared-prefix 1000 | 1000:80% | 1000x4:80%   --turns 4 | 2-6
--fail-on-regression 5% | ttft_p95=5%,output_tokens_per_s=3%
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.errors import InputError
from orchestrator.plugins import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T", int, float)
M = TypeVar("M", bound="BaseModel")
_LIMITS = ("ttft", "itl", "tpot", "e2e")
_LENGTHS = "512, 100-500, lognormal:400,0.8 (median, sigma) or file:lengths.txt"
_OPTIONS = {
    "dataset": "--prompts",
    "request_rate": "--rate",
    "num_requests": "--requests",
    "request_timeout": "--timeout",
    "warmup_duration": "--warmup",
}
"""Fields whose option has another name, and models that are one option."""
_FLAGS = {
    *("--prompts", "--trace", "--trace-speed", "--input-tokens", "--output-tokens", "--shared-prefix", "--turns"),
    *("--concurrency", "--rate", "--requests", "--timeout", "--slo", "--sweep", "--duration", "--warmup"),
    *("--workers", "--max-tokens", "--temperature", "--seed"),
}
_PLAIN = {
    "sweep": "sweep",
    "duration": "duration",
    "requests": "num_requests",
    "workers": "workers",
    "timeout": "request_timeout",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "seed": "seed",
}
"""Options that are fields of a `SweepPlan` as they are."""
STREAMS = (1, 8, 32)
CLOSED_LOOP_S = 15
"""Of each concurrency where nothing is said about its length: three of them take about a minute."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A header's name, RFC 9110."""
_PREFIX = re.compile(r"(?P<tokens>[^x:]+)(x(?P<count>\d+))?(:(?P<share>.+))?")


def numbers(option: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """`1,8,64`, each above 0 and once."""
    found = []
    for part in text.split(","):
        try:
            value = kind(part.strip())
        except ValueError:
            raise _wrong(option, text, "write numbers with commas between them, such as 1,8,64") from None
        if not (value > 0 and math.isfinite(value)):
            raise _wrong(option, text, "every number must be above 0")
        found.append(value)
    if len(set(found)) < len(found):
        raise _wrong(option, text, "each is measured once, but one stands there twice")
    return found


def slo(text: str) -> dict[str, Any]:
    """`ttft=500ms,tpot=50ms,share=95%` as the fields of an `Slo`."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in (*_LIMITS, "share") or not equals:
            raise _wrong(
                "--slo", text, f"write limits such as ttft=500ms,tpot=50ms; known: {', '.join(_LIMITS)}, share"
            )
        if name in found:
            raise _wrong("--slo", text, f"it contradicts itself: {name} stands there twice")
        found[name] = percent("--slo", value) if name == "share" else value
    if not found.keys() - {"share"}:
        raise _wrong("--slo", text, f"it limits nothing; give one of {', '.join(_LIMITS)}")
    return found


def lengths(option: str, text: str) -> Any:
    """A distribution of tokens or turns."""
    kind, _, rest = text.partition(":")
    if kind == "file" and rest:
        return {"file": rest}
    if kind == "lognormal":
        parts = [part.strip() for part in rest.split(",")]
        try:
            return {"lognormal": {"median": parts[0], "sigma": float(parts[1])}} if len(parts) == 2 else _no(parts)
        except ValueError:
            raise _wrong(option, text, f"write {_LENGTHS}") from None
    between = re.fullmatch(r"\s*([\w.]+)\s*-\s*([\w.]+)\s*", text)
    return {"uniform": [between[1], between[2]]} if between else text


def prefix(text: str) -> dict[str, Any]:
    """Tokens of a shared prefix, how many different ones, and the share of the requests that have one."""
    found = _PREFIX.fullmatch(text)
    if found is None:
        raise _wrong("--shared-prefix", text, "write 1000, 1000:80% or 1000x4:80% (four different ones)")
    asked: dict[str, Any] = {"tokens": found["tokens"]}
    if found["count"]:
        asked["count"] = int(found["count"])
    if found["share"]:
        asked["share"] = percent("--shared-prefix", found["share"])
    return asked


def percent(option: str, text: str) -> float:
    """`5%` or `0.05` as 0.05."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise _wrong(option, text, "write a share such as 5%") from None
    if not 0 <= value <= 1:
        raise _wrong(option, text, "a share is between 0% and 100%")
    return value


def regressions(text: str) -> float | dict[str, float]:
    """`5%` for every metric, or `ttft_p95=5%,output_tokens_per_s=3%` for these alone."""
    from orchestrator.bench.verdict import METRICS

    option = "--fail-on-regression"
    if "=" not in text:
        return percent(option, text)
    found = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        if name not in METRICS:
            raise _wrong(option, text, f"there is no metric {name!r}; {nearest(name, list(METRICS))}")
        found[name] = percent(option, share)
    return found


def headers(lines: Sequence[str]) -> dict[str, str]:
    """`api-key: secret` of each."""
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not (colon and _TOKEN.fullmatch(name.strip()) and value.strip().isprintable()):
            raise InputError('--header: write it like "api-key: ..."')  # and do not repeat what may be a secret
        found[name.strip()] = value.strip()
    return found


@dataclass(frozen=True)
class Given:
    """What was typed, beside the targets."""

    model: str | None
    api_key: str | None
    usd_per_hour: float | None
    name: str | None
    plan: Mapping[str, Any]
    """Options about the load, by their names."""
    workload: Mapping[str, str | None]
    """Options about what is asked, by their names."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of every request; never kept."""

    @property
    def chosen(self) -> list[str]:
        """The options that say what is measured."""
        own = {
            "model": self.model,
            "header": self.headers or None,
            "usd_per_hour": self.usd_per_hour,
            "name": self.name,
        }
        return [_flag(name) for name, value in {**own, **self.plan, **self.workload}.items() if value is not None]


def plan(given: Given) -> dict[str, Any]:
    """The options as the fields of a `SweepPlan`."""
    options = {name: value for name, value in given.plan.items() if value is not None}
    found = {key: options[name] for name, key in _PLAIN.items() if name in options}
    for name, key, kind in (("concurrency", "concurrency", int), ("rate", "request_rate", float)):
        if name in options:
            found[key] = numbers("-c" if kind is int else "--rate", options[name], kind)
    if "slo" in options:
        found["slo"] = slo(options["slo"])
    if "warmup" in options:
        found |= (
            {"warmup": int(options["warmup"])}
            if options["warmup"].isdigit()
            else {"warmup_duration": options["warmup"]}
        )
    asked = workload(given.workload)
    if "trace" in asked and "requests" in options and "rate" not in options:
        asked["limit"] = found.pop("num_requests")  # its own times have no rate that a number would be a duration at
    if not options.keys() & {"concurrency", "rate", "sweep"} and "trace" not in asked:
        found["concurrency"] = list(STREAMS)
    if "concurrency" in found and "request_rate" not in found and not options.keys() & {"duration", "requests"}:
        found["duration"] = CLOSED_LOOP_S
    return {**found, "workload": asked}


def workload(options: Mapping[str, str | None]) -> dict[str, Any]:
    """The `workload` section that the options --prompts, --trace, --input-tokens ... describe."""
    given = {name: value for name, value in options.items() if value is not None}
    found: dict[str, Any] = {}
    if "prompts" in given:
        found["dataset"] = given["prompts"]
    if "trace" in given:
        found["trace"] = given["trace"]
    made = {name: lengths(_flag(name), given[name]) for name in ("input_tokens", "output_tokens") if name in given}
    if "prompts" in given and "output_tokens" in made:
        found["output_tokens"] = made.pop("output_tokens")
    if made or not found:
        found["synthetic"] = {"input_tokens": 256, "output_tokens": 128} | made
    if "shared_prefix" in given:
        found["shared_prefix"] = prefix(given["shared_prefix"])
    if "turns" in given:
        found["turns"] = lengths("--turns", given["turns"])
    if "trace_speed" in given:
        found["trace_speed"] = given["trace_speed"]
    return found


def checked(kind: type[M], data: Any) -> M:
    """The data as a model. Raises InputError that names the options which do not fit."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(kind, detail) for detail in error.errors(include_url=False))
        raise InputError(
            "\n".join(problems), next_step="`orch bench run --help` shows how options are written"
        ) from error


def _problem(kind: type[Any], detail: Any) -> str:
    named = [_OPTIONS.get(part, _flag(part)) for part in detail["loc"] if isinstance(part, str)]
    known = [name for name in named if name in _FLAGS]
    where = known[-1] if known else "--slo" if kind.__name__ == "Slo" else "the options"
    found = "" if detail["type"] == "value_error" else f"; found {detail['input']!r}"
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}{found}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _no(parts: list[str]) -> Any:
    raise ValueError(f"two numbers are needed, not {len(parts)}")


def _wrong(option: str, text: str, why: str) -> InputError:
    return InputError(f"{option} {text}: {why}")
