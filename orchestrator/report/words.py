"""How reports write things: numbers with their units, times and names; and templates that do so."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.units import Bytes

_SECONDS = ("ttft", "itl", "tpot", "e2e", "seconds")
_YES_NO = ("prompt_tokens_identical", "chat_template_identical", "stops")


def page(template: str, **values: Any) -> str:
    """A template of this folder, filled; every value in it is escaped unless the template says otherwise."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "said": said,
        "number": number,
        "words": words,
        "duration": duration,
        "moment": moment,
        "size": size,
        "filesize": filesize,
    }
    return environment.get_template(template).render(**values)


def number(value: Any, name: str = "") -> str:
    """A number for reading, with the unit that its metric's name implies."""
    if value is None:
        return "–"
    if isinstance(value, bool) or name.endswith(_YES_NO):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if any(name.rsplit(".", 1)[-1].startswith(unit) for unit in _SECONDS):
        return duration(value)
    if "exact_match" in name and abs(value) <= 1:
        return f"{100 * value:.1f} %"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def said(value: Any, name: str = "") -> str:
    """A setting for reading, whatever it holds; what is empty or not known is an empty text."""
    if isinstance(value, Mapping):
        parts = {key: text for key, inner in value.items() if (text := said(inner, key))}
        return (
            next(iter(parts.values()))
            if [*parts] == ["fixed"]
            else ", ".join(f"{key.replace('_', ' ')} {text}" for key, text in parts.items())
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(text for inner in value if (text := said(inner)))
    return "" if value is None else number(value, name)


def duration(seconds: float | None) -> str:
    """`840 µs`, `52.3 ms`, `1.24 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        if seconds >= 1 or seconds == 0:
            return f"{seconds:.3g} s"
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1e6:.3g} µs"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(seconds: float | None) -> str:
    """A time since 1970 as UTC."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(amount: int | None) -> str:
    """Memory in GiB."""
    return "unknown" if amount is None else str(Bytes.parse(f"{amount / 2**30:.1f}GiB"))


def filesize(amount: float | None) -> str:
    """Bytes of files, in powers of ten as file systems and downloads say it."""
    if amount is None:
        return "–"
    return f"{amount / 1e9:.3g} GB" if amount >= 1e9 else f"{amount / 1e6:.3g} MB"


def words(name: str) -> str:
    """`removed_from_test` -> `Removed from test`."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:] if not text.startswith("kl ") else f"KL {text[3:]}"
