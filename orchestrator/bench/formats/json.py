"""Our own result as it is kept; `orch bench import` reads it back."""

from orchestrator.bench.formats.base import Load
from orchestrator.bench.result import Result


def files(result: Result, load: Load) -> dict[str, str]:
    """One file."""
    return {"": result.model_dump_json(indent=1) + "\n"}
