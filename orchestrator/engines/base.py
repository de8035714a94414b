"""What a serving engine is: one module of this folder; its file's name is its name in a recipe.

`Options`, `command`, `environment`, `supports` and `parse_metrics` are pure or nearly so and need no
accelerator to test. `export` makes the engine's files from a merged model. The last three functions ask a running
engine what it really does with a chat; parity compares that with the reference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.config import Model
from orchestrator.loadgen.scrape import EngineMetrics

Message = Mapping[str, Any]
"""{"role": ..., "content": ...}"""


class Support(Model):
    """Whether an engine can do something here, and why not."""

    ok: bool
    reason: str = ""
    """Empty when ok; else what is missing and what would do."""


class Engine(Protocol):
    """The shape of an engine's module (mypy checks modules against it)."""

    QUANTIZATIONS: tuple[str, ...]
    """Weight formats that `export` makes, written as in a recipe."""
    LIBRARIES: tuple[str, ...]
    """Distributions whose version changes what `export` makes or how the engine answers."""
    Options: type[Any]
    """`serve.engine_args` of a recipe: a Model whose fields carry the engine's own names."""

    # optional:
    # planned(options) -> dict, what planning needs of the options by the names of `planner.serving.Serving`; without
    # it, the options that have the same names there

    def version(self) -> str:
        """The program and its version; "not installed" when there is none."""

    def supports(self, quantization: str, accelerator: str | None) -> Support:
        """Whether the engine can make and serve this weight format on the accelerator (None: the CPU)."""

    def command(self, model: Path, options: Any, *, host: str, port: int, alias: str) -> list[str]:
        """The command line that serves `model` (what `export` made) under the name `alias`."""

    def options_for(self, context_tokens: int) -> Any:
        """Options under which one request of that many tokens, prompt and answer, is served."""

    def environment(self, options: Any) -> dict[str, str]:
        """Variables that the command needs beyond the inherited ones."""

    def parse_metrics(self, text: str) -> EngineMetrics:
        """From the text of the engine's metrics endpoint."""

    def export(self, merged: Path, quantization: str, out: Path, *, home: Path, log: Path) -> None:
        """Write the engine's file or folder at `out` from a merged model folder, whole or not at all.

        `home` may keep tools between runs. Raises InputError for a model that cannot be converted,
        InfrastructureError when a tool is missing or died.
        """

    def exported_name(self, name: str) -> str:
        """File name for a target called `name`, such as `gguf` -> `gguf.gguf`."""

    def chat_template(self, url: str) -> str:
        """The chat template that the running engine applies; `url` is its base URL with /v1."""

    def prompt_tokens(self, url: str, messages: Sequence[Message]) -> list[int]:
        """Token ids that the running engine makes of a chat, generation prompt included."""

    def next_token_logprobs(self, url: str, tokens: Sequence[int], top: int) -> dict[int, float]:
        """The `top` likeliest tokens after `tokens` -> natural log-probability, before any sampling rule."""
