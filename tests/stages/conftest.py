"""A tiny model as the stages before evaluation leave it, made once; and a context whose workers are real processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import home
from orchestrator.controller.execute import run_worker
from orchestrator.environments.site import Site
from orchestrator.stages.base import Context, Outputs


@dataclass
class Bench:
    """Runs stages in `folder`."""

    folder: Path
    inputs: dict[str, Outputs]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def context(self, name: str, **inputs: Outputs) -> Context:
        """A stage's context in a folder of its own; `inputs` come on top of the bench's."""
        directory = self.folder / name
        directory.mkdir(exist_ok=True)

        def emit(kind: str, /, **data: Any) -> None:
            self.events.append((kind, data))

        return Context(
            home=home(),  # keeps the converter between test runs
            run="r1",
            digest=name,
            cwd=self.folder,
            directory=directory,
            inputs=self.inputs | inputs,
            emit=emit,
            worker=lambda worker, request, python=None: run_worker(worker, request, directory, emit, python=python),
            site=Site(home()),
        )


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    """With a data stage's and a QLoRA train stage's outputs."""
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    base = tiny_model.build_base(folder / "base")
    adapter = tiny_model.build_adapter(base, folder / "adapter")
    rows = tiny_model.write_rows(folder / "test_rows.jsonl")
    tokens = tiny_model.write_tokens(base, folder / "test.parquet")
    data = Outputs(artifacts={"test_rows": str(rows), "test": str(tokens)})
    return Bench(folder, {"data": data, "train": Outputs(artifacts={"adapter": str(adapter)})})


@pytest.fixture(scope="session")
def exported(bench) -> Outputs:
    """The export stage's outputs: the merged folder, `exact` (F32) and `small` (Q8_0)."""
    from orchestrator.stages import export

    targets = [
        export.Target(name="exact", engine="llama_cpp", quantization="F32"),
        export.Target(name="small", engine="llama_cpp", quantization="Q8_0"),
    ]
    return export.run(export.Config(targets=targets), bench.context("export"))
