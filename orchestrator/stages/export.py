"""The export stage: one plain model out of base and adapter, then each target's file by its engine.

Artifacts: `merged` (folder), and one per target name. A target that is there already, because an earlier attempt of the
same stage made it, is not made again: files get their names only when they are complete.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from orchestrator import engines, plugins, token_contract
from orchestrator.config import Model
from orchestrator.digests import digest_path
from orchestrator.engines.base import Source, Tools
from orchestrator.stages.base import Context, Outputs, Resources

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "gguf")
WORKERS = ("merge", "loading", "contract")
METRICS = ("*.bytes",)
ON_ACCELERATOR = True
MERGED = "merged"
SHARED = ".shared"
"""Folder of files that several targets are made of, while they are made; no target is called so."""


class Target(Model):
    """What is made for one engine."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the export, for gates, benchmarks and `serve.target`; `merged` is the model before any of them."""
    engine: str
    """The engine that will serve it."""
    quantization: str
    """Number format of the weights, by the engine's own name."""

    @field_validator("name")
    @classmethod
    def _not_taken(cls, value: str) -> str:
        if value == MERGED:
            raise ValueError(f"the name {MERGED!r} is taken by the merged model; choose another one")
        return value


class Entry(Target):
    """One entry of the `export` section of a recipe."""

    required: bool = True
    """Whether the run needs it: a target that is not required is left out of export, parity, benchmark and gates where
    it cannot be served, and the plan says why."""

    @field_validator("quantization")
    @classmethod
    def _as_the_engine_writes_it(cls, value: str, info: ValidationInfo) -> str:
        """fp8 and FP8 are the same, and have the same digest; what the engine does not know is left to `checks`."""
        engine = info.data.get("engine")
        known = plugins.load(engines, engine).QUANTIZATIONS if engine in plugins.names(engines) else ()
        return next((name for name in known if name.lower() == value.strip().lower()), value)

    @property
    def target(self) -> Target:
        """What is made; whether it is required changes nothing about it."""
        return Target(**self.model_dump(exclude={"required"}))


class Config(Model):
    """What is exported."""

    targets: list[Target]
    """One entry an engine and a quantization."""


def estimate(config: Config) -> Resources:
    """One core: a merge is one pass over the weights."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Merge, then convert. Raises InputError for a model that an engine cannot read."""
    started = time.monotonic()
    train, merged = context.inputs["train"].artifacts, context.directory / MERGED
    if not merged.exists():
        context.worker("merge", {"tuned": train.get("adapter") or train["model"], "out": str(merged)})
    seconds = {MERGED: time.monotonic() - started}
    source, shared = _source(merged, context), context.directory / SHARED
    shutil.rmtree(shared, ignore_errors=True)  # a killed attempt may have left half a file
    try:
        made = [_made(target, source, context) for target in config.targets]
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    contract = token_contract.read(merged)
    return Outputs(
        artifacts={MERGED: str(merged), **{target["name"]: target["path"] for target in made}},
        metrics={f"{target['name']}.bytes": target["bytes"] for target in made},
        report={
            "targets": made,
            "seconds": seconds | {target["name"]: target["seconds"] for target in made},
            "token_contract": contract.summary() if contract else None,
        },
    )


def _source(merged: Path, context: Context) -> Source:
    """What the stages before left."""
    train, data = context.inputs["train"].artifacts, context.inputs.get("data")
    rows = data.artifacts.get("train_rows") if data else None
    adapter = Path(train["adapter"]) if "adapter" in train else None
    base = context.inputs["prepare"].artifacts["base_model"] if "prepare" in context.inputs else None
    return Source(merged=merged, base=Path(base) if base else None, adapter=adapter, rows=Path(rows) if rows else None)


def _made(target: Target, source: Source, context: Context) -> dict[str, Any]:
    """Name, engine, quantization, path, digest, bytes and seconds of one target."""
    started, out = time.monotonic(), context.directory / target.name
    if not out.exists():
        context.say(f"exporting {target.name}: {target.quantization} for {target.engine}")
        _export(target, source, out, context)
    digest, size = digest_path(out)
    return {
        **target.model_dump(),
        "path": str(out),
        "digest": digest,
        "bytes": size,
        "seconds": time.monotonic() - started,
    }


def _export(target: Target, source: Source, out: Path, context: Context) -> None:
    """The engine's files and the token contract, in a folder that gets its name once it is complete."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    log, shared = context.directory / f"{target.name}.log", context.directory / SHARED
    tools = Tools(context.site, log, context.worker, context.say, shared)
    plugins.load(engines, target.engine).export(source, target.quantization, partial, tools)
    if contract := token_contract.read(source.merged):
        token_contract.write(contract, partial)
    partial.rename(out)
