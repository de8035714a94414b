"""Results in the formats of other tools, one file each; the versions that they were read from stand in the files.

    imported = read(Path("guidellm.json"))            # which tool's it is, is found out
    files("vllm_bench", result, load)                 # suffix of the name -> text

A tool's file has `VERSION`, `reads(data)`, `read(data, path)` and `files(result, load)`; csv and json are only written.
What a file does not say stays unknown in the result.
"""

from json import loads  # one of the files here is called json
from pathlib import Path
from typing import Any

from orchestrator import plugins
from orchestrator.bench import formats
from orchestrator.bench.formats.base import Imported, Load
from orchestrator.bench.result import Result
from orchestrator.errors import InputError

_HINT = (
    "give GuideLLM's benchmarks.json, AIPerf's profile_export_aiperf.json, or the JSON of `vllm bench --save-result`"
)


def read(path: Path) -> Imported:
    """The result in another tool's file. Raises InputError for a file that none of them wrote, or that is cut."""
    try:
        data = loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", next_step=_HINT) from error
    for name in plugins.names(formats):
        tool: Any = plugins.load(formats, name)
        if isinstance(data, dict) and hasattr(tool, "reads") and tool.reads(data):
            try:
                found: Imported = tool.read(data, path)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise InputError(
                    f"{path} looks like a result of {name} {tool.VERSION}, but is not one: {error!r}", next_step=_HINT
                ) from error
            return found
    raise InputError(f"{path} is no result of a tool that is known", next_step=_HINT)


def files(name: str, result: Result, load: Load) -> dict[str, str]:
    """Texts by what is to be added to the file's name; the empty string stands for the file itself.

    Raises InputError for an unknown format, and where the records that a format needs were not kept.
    """
    made: dict[str, str] = plugins.load(formats, name).files(result, load)
    return made
