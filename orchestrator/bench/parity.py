"""Whether the targets of a sweep counted the same prompt tokens, from the records of its cells."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.bench.result import Cell
from orchestrator.loadgen import drive
from orchestrator.loadgen.metrics import prompt_parity
from orchestrator.loadgen.record import Record

WHOLE_TOKEN = 1
"""Another template or tokenizer shifts a count by whole tokens in every cell; less is a nonce of some cells."""


def parity(cells: Sequence[Cell], targets: Sequence[str], directory: Path) -> dict[str, Any] | None:
    """Each target compared with the first, workload by workload; None where fewer than two were measured."""
    pairs: list[dict[str, Any]] = []
    for workload in dict.fromkeys(cell.workload for cell in cells):
        files = {target: _files(cells, target, workload) for target in targets}
        first, *others = [target for target in targets if files[target]] or [""]
        for other in others:
            found = prompt_parity.compare(_records(directory, files[first]), _records(directory, files[other]))
            if found is not None:
                pairs.append({"workload": workload, "targets": [first, other], **dataclasses.asdict(found)})
    return verdict(pairs) if pairs else None


def verdict(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether all pairs counted alike, and if not, for how many prompts of the worst pair and by how much (pure)."""
    apart = [pair for pair in pairs if abs(pair["largest_difference"]) >= WHOLE_TOKEN]
    return {
        "identical": not apart,
        "prompts": min(pair["prompts"] for pair in pairs),
        "differ": max((round((1 - pair["exact_share"]) * pair["prompts"]) for pair in apart), default=0),
        "largest": max((pair["largest_difference"] for pair in pairs), key=abs),
        "pairs": pairs,
    }


def _files(cells: Sequence[Cell], target: str, workload: str) -> list[str]:
    mine = (cell for cell in cells if (cell.target, cell.workload, cell.state) == (target, workload, "done"))
    return [cell.records for cell in mine if cell.records]


def _records(directory: Path, files: Sequence[str]) -> Iterator[Record]:
    return itertools.chain.from_iterable(drive.load_records(directory / file).records for file in files)
