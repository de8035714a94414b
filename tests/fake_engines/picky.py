"""An engine as far as a plan asks it: bf16 and fp8 on GPUs, fp8 from Ada on, an adapter unless it is DoRA; no CPU."""

from orchestrator.config import Model
from orchestrator.engines.base import LORA, Support
from orchestrator.environments.environment import Environment, Pip

QUANTIZATIONS = ("bf16", "fp8", LORA)
ENVIRONMENTS = (
    Environment(
        name="picky",
        version="1.2",
        purpose="serves when it likes",
        kinds={"cuda": Pip(requirements=("picky=={version}",), size_bytes=10**9)},
        refusals={"rocm": "picky runs on NVIDIA only"},
    ),
)


class Options(Model):
    """`engine_args`."""

    tensor_parallel_size: int = 1
    """GPUs that share the model."""


def supports(quantization, gpu):
    if gpu is None:
        return Support(ok=False, reason="no NVIDIA GPU")
    if quantization == "fp8" and gpu.arch == "sm_80":
        return Support(ok=False, reason=f"fp8 needs Ada or Hopper, not {gpu.kind}")
    return Support(ok=True)


def refuses(adapter, quantization):
    return ["it does not load DoRA; export it merged"] if adapter.use_dora and quantization == LORA else []


def command(launch, options):
    served = launch.installed.program("picky-serve")
    settings = str(launch.directory / "picky.yaml")
    return [*served, str(launch.model), "--host", launch.host, "--port", str(launch.port), "--config", settings]


def files(launch, options):
    return {"picky.yaml": f"name: {launch.alias}\ntensor_parallel_size: {options.tensor_parallel_size}\n"}


def environment(launch, options):
    return {"PICKY": "yes please"}
