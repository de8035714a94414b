"""Tells another service that something happened: one POST of JSON, tried a few times.

The payload is a JSON object. These keys are always there:

    event    what happened: `benchmark.finished`, `benchmark.regressed` or `schedule.failed`
    text     the same as one sentence; Slack, Mattermost and others show this key as the message

What else there is depends on the event: of a benchmark `benchmark` (its id), `name`, `run` and `service`; of a schedule
`schedule`, `tick` (when it was due, ISO 8601), `exit_code`, `reason`, `log` (a file) and `host`.

Such a URL often holds a token in its path or query: `redacted` is all that is printed or stored in an event.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from orchestrator.errors import InfrastructureError, InputError

_BACKOFF_S = 1.0
_EXAMPLE = "such as https://hooks.example.com/services/TOKEN"


def post(
    url: str,
    payload: Mapping[str, Any],
    *,
    attempts: int = 3,
    timeout_s: float = 10,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Deliver the payload. Tried again, after 1 s, 2 s ..., where the server cannot be reached or answers 5xx or 429.

    Raises InputError for a URL that is none, InfrastructureError when it was not delivered; what the message is about
    must not fail for that: catch it, and say it.
    """
    check(url)
    request = urllib.request.Request(
        url, json.dumps(payload).encode(), {"Content-Type": "application/json", "User-Agent": "orch"}, method="POST"
    )
    for attempt in range(attempts):
        if attempt:
            wait(_BACKOFF_S * 2 ** (attempt - 1))
        refusal, passing = _send(request, timeout_s)
        if refusal is None:
            return
        if not passing:
            break
    raise InfrastructureError(
        f"the webhook {redacted(url)} was not told of {payload.get('event')}: {refusal}"
        f" ({attempt + 1} of {attempts} attempts)"
    )


def check(url: str) -> None:
    """Raises InputError, which does not repeat the URL, unless it can be posted to."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises ValueError for a port that is none
    except ValueError as error:
        raise InputError("the webhook's address is not a URL", next_step=f"give one {_EXAMPLE}") from error
    problem = _problem(url, parts)
    if problem:
        raise InputError(f"the webhook's URL {problem}", next_step=f"give one {_EXAMPLE}")


def redacted(url: str) -> str:
    """Scheme and host alone: the rest may be a secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/…"


def _problem(url: str, parts: SplitResult) -> str | None:
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if parts.username is not None:
        return "holds a user name, which is not supported"
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        return "holds a space or a character that must be percent-encoded"
    return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would follow with a GET without the payload, and call that delivered."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def _send(request: urllib.request.Request, timeout_s: float) -> tuple[str | None, bool]:
    """Why it was not delivered, None if it was, and whether that may pass."""
    try:
        with _opener.open(request, timeout=timeout_s):
            return None, False
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code} {error.reason}", error.code >= 500 or error.code == 429
    except urllib.error.URLError as error:
        return str(error.reason), True
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__, True
