"""JSON lines as they were written."""

import json
from pathlib import Path

from orchestrator import jsonlines


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\u0085c\x0bd"}, {"text": "e"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert jsonlines.read(path) == rows
