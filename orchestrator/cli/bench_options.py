"""Short spellings of `orch bench run`'s options, turned into what a recipe's `benchmark` section would say; pure.

-c 1,8,64   --slo ttft=500ms,tpot=50ms   --input-tokens 512 | 100-500 | lognormal:400,0.8 | file:lengths.txt
--shared-prefix 1000 | 1000:80% | 1000x4:80%   --turns 4 | 2-6   --fail-on-regression 5%
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from orchestrator.errors import InputError

T = TypeVar("T", int, float)
_LIMITS = ("ttft", "itl", "tpot", "e2e")
_LENGTHS = "512, 100-500, lognormal:400,0.8 (median, sigma) or file:lengths.txt"
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


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _no(parts: list[str]) -> Any:
    raise ValueError(f"two numbers are needed, not {len(parts)}")


def _wrong(option: str, text: str, why: str) -> InputError:
    return InputError(f"{option} {text}: {why}")
