"""The export stage: one plain model out of base and adapter, then each target's file by its engine.

Artifacts: `merged` (folder), and one per target name. A target that is there already, because an earlier attempt of the
same stage made it, is not made again: files get their names only when they are complete.
"""

import time
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from orchestrator import engines, plugins
from orchestrator.config import Model
from orchestrator.digests import digest_path
from orchestrator.stages.base import Context, Outputs, Resources

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "gguf")
WORKERS = ("merge", "loading")
METRICS = ("*.bytes",)
ON_ACCELERATOR = True
MERGED = "merged"


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


class Config(Model):
    """The `export` section."""

    targets: list[Target]
    """One entry an engine and a quantization."""


def estimate(config: Config) -> Resources:
    """One core: a merge is one pass over the weights."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Merge, then convert. Raises InputError for a model that an engine cannot read."""
    started = time.monotonic()
    merged = context.directory / MERGED
    if not merged.exists():
        train = context.inputs["train"].artifacts
        context.worker("merge", {"tuned": train.get("adapter") or train["model"], "out": str(merged)})
    seconds = {MERGED: time.monotonic() - started}
    made = [_made(target, merged, context) for target in config.targets]
    return Outputs(
        artifacts={MERGED: str(merged), **{target["name"]: target["path"] for target in made}},
        metrics={f"{target['name']}.bytes": target["bytes"] for target in made},
        report={"targets": made, "seconds": seconds | {target["name"]: target["seconds"] for target in made}},
    )


def _made(target: Target, merged: Path, context: Context) -> dict[str, Any]:
    """Name, engine, engine version, quantization, path, bytes and seconds of one target."""
    engine, started = plugins.load(engines, target.engine), time.monotonic()
    out = context.directory / engine.exported_name(target.name)
    if not out.exists():
        context.emit("log", message=f"exporting {target.name}: {target.quantization} for {target.engine}")
        log = context.directory / f"{target.name}.log"
        engine.export(merged, target.quantization, out, home=context.home, log=log)
    digest, size = digest_path(out)
    return {
        **target.model_dump(),
        "engine_version": engine.version(),
        "path": str(out),
        "digest": digest,
        "bytes": size,
        "seconds": time.monotonic() - started,
    }
