"""Reads the JSON-lines files that this project writes."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """One object a line, blank lines left out.

    Only a line feed ends a line: `str.splitlines` would also cut at a raw U+2028 or U+0085 inside a text.
    """
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
