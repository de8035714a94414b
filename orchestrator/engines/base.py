"""What a serving engine is: one module of this folder; its file's name is its name in a recipe.

Everything but `export`, `attach` and the three questions to a running engine is pure or nearly so and needs no
accelerator to test. `running.py` starts an engine out of these parts; parity compares its answers with the reference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.catalog.gpus import Gpu
from orchestrator.config import Model
from orchestrator.environments.environment import Environment, Installed
from orchestrator.environments.site import Site
from orchestrator.loadgen.scrape import EngineMetrics

Message = Mapping[str, Any]
"""{"role": ..., "content": ...}"""
LORA = "lora"
"""The `quantization` of an export that is the adapter itself, served on its base."""


class Support(Model):
    """Whether an engine can do something here, and why not."""

    ok: bool
    reason: str = ""
    """Empty when ok; else what is missing and what would do."""


class Adapter(Model):
    """What decides whether an adapter can be served or merged: PEFT's own names, from a recipe or from its folder."""

    rank: int
    """The largest of all modules."""
    alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True
    """`pissa`, `olora`, `corda` and `loftq` change the base that the adapter belongs to."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that were trained as a whole."""
    bias: str = "none"
    resized_vocabulary: bool = False
    """Embedding and head are in the adapter, for tokens that the base has not."""
    alpha_pattern: bool = False
    """Some modules have a scale of their own."""
    rank_pattern: bool = False
    """Some modules have a rank of their own."""
    target_modules: tuple[str, ...] = ()
    """Last parts of the names of modules that it changes; empty: every linear one, or what a pattern will find."""
    variants: tuple[str, ...] = ()
    """Settings in use by which it is more than A x B on each module, such as lora_bias or layer_replication."""


class Work(Protocol):
    """Runs `orchestrator.workers.<name>` with a request and returns its result, both plain JSON data.

    `python` starts the interpreter of an environment; without it, the one that runs orch. Raises the worker's own
    OrchError; InfrastructureError when the process died without one.
    """

    def __call__(
        self, name: str, request: Mapping[str, Any], *, python: Sequence[str] | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Source:
    """A tuned model, as the stages before the export left it."""

    merged: Path
    """Folder of the plain model, adapter and base in one."""
    base: Path | None = None
    """Folder of the base that the adapter belongs to."""
    adapter: Path | None = None
    """Folder of the adapter; None after full fine-tuning."""
    rows: Path | None = None
    """The training chats as JSON lines, {"messages": [...]}: what calibration is drawn from."""
    seed: int = 17
    """Of the rows that are drawn."""


@dataclass(frozen=True)
class Tools:
    """What an export may use."""

    site: Site
    log: Path
    """Where programs that it starts write."""
    worker: Work
    say: Callable[[str], None]
    shared: Path
    """Folder, perhaps not there yet, for what several exports of one model share; removed after the last of them."""


@dataclass(frozen=True)
class Launch:
    """One engine process to be: what it serves, where, and from which environment."""

    model: Path
    """Folder that `export` wrote."""
    alias: str
    """Name that requests ask for."""
    host: str
    port: int
    directory: Path
    """Where `files` lie, and logs."""
    installed: Installed
    options: Any = None
    """`Options` of the engine, for what `attach` compares."""
    adapter: Adapter | None = None
    """Of an export that is only planned: what its adapter will be. One that is made is read from `model`."""
    base: Path | None = None
    """And what it will be served on."""

    @property
    def url(self) -> str:
        """Base URL of its API, with /v1."""
        return f"http://{self.host}:{self.port}/v1"


class Engine(Protocol):
    """The shape of an engine's module (mypy checks modules against it)."""

    QUANTIZATIONS: tuple[str, ...]
    """Weight formats that `export` makes, written as in a recipe; `lora` is the adapter on its base."""
    ENVIRONMENTS: tuple[Environment, ...]
    """The first serves, the others make its files; none: the interpreter that runs orch does both."""
    LIBRARIES: tuple[str, ...]
    """Distributions of orch's own environment whose version changes what `export` makes."""
    REQUEST_FIELDS: frozenset[str]
    """Fields of a chat or completion request that it takes; no other is sent."""
    STOP_GRACE_S: float
    """Seconds between SIGTERM and SIGKILL."""
    Options: type[Any]
    """`serve.engine_args` of a recipe: a Model whose fields carry the engine's own names."""

    # optional:
    # WORKERS, names of the workers that its `export` runs: their code is part of an export's digest
    # SUGGESTED, those of QUANTIZATIONS that a plan may propose in another's place; without it, all of them
    # planned(options) -> dict, what planning needs of the options by the names of `planner.serving.Serving`; without
    # it, the options that have the same names there

    def supports(self, quantization: str, gpu: Gpu | None) -> Support:
        """Whether the engine can serve this weight format on the accelerator (None: the CPU of this machine)."""

    def refuses(self, adapter: Adapter, quantization: str) -> list[str]:
        """Why a model with such an adapter cannot be served in this format, each with what would do."""

    def command(self, launch: Launch, options: Any) -> list[str]:
        """The command line that serves the model."""

    def files(self, launch: Launch, options: Any) -> dict[str, str]:
        """Files that the command reads from `launch.directory`: name -> text."""

    def options_for(self, context_tokens: int) -> Any:
        """Options under which one request of that many tokens, prompt and answer, is served."""

    def environment(self, launch: Launch, options: Any) -> dict[str, str]:
        """Variables that the command needs beyond the inherited ones."""

    def diagnose(self, log: str) -> str | None:
        """What a log says about why the engine cannot go on, in one line with what would do; None: nothing known.

        Asked when the engine has ended, and while it runs: an engine may be dead and still answer.
        """

    def parse_metrics(self, text: str) -> EngineMetrics:
        """From the text of the engine's metrics endpoint."""

    def export(self, source: Source, quantization: str, out: Path, tools: Tools) -> None:
        """Write the engine's files into the new folder `out`; whoever calls gives it its name when it is complete.

        Raises InputError for a model that cannot be converted, InfrastructureError when a tool is missing or died.
        """

    def models(self, launch: Launch) -> list[str]:
        """Names that the running server answers to. Raises what `client.models` raises while it cannot say."""

    def attach(self, launch: Launch) -> None:
        """Once the server answers, make it serve `launch.model` under the alias where its command alone does not.

        Raises EngineError where the server tells that it serves another model, or otherwise than the launch asked for.
        """

    def request_fields(self, launch: Launch) -> dict[str, Any]:
        """What each request must say besides the usual for this very model to answer."""

    def served_name(self, launch: Launch) -> str:
        """The model's name in requests to this engine: the alias, where the engine lets us choose."""

    def chat_template(self, launch: Launch) -> str | None:
        """The chat template that the running engine applies; where it does not tell, the one in the files it loads."""

    def prompt_tokens(self, launch: Launch, messages: Sequence[Message]) -> list[int] | None:
        """Token ids that the running engine makes of a chat and the generation prompt; None: nobody can tell.

        Where the engine does not tell, those by the files that it loads (`_chat_tokens`): its usage still counts them.
        """

    def next_token_logprobs(self, launch: Launch, tokens: Sequence[int], top: int) -> dict[int, float]:
        """The likeliest tokens after `tokens`, at most `top` -> natural log-probability, before any sampling rule.

        An engine may tell fewer; empty where it tells none.
        """
