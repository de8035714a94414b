"""An engine as far as a plan asks it, by a name that the planner predicts: bf16, fp8 from Ada on, adapters; no CPU."""

from orchestrator.config import Model
from orchestrator.engines.base import LORA, Support
from orchestrator.environments.environment import Environment, Pip

QUANTIZATIONS = ("bf16", "fp8", LORA)
LIBRARIES = ()
ENVIRONMENTS = (
    Environment(
        name="sglang",
        version="1.2",
        purpose="serves when it likes",
        kinds={"cuda": Pip(requirements=("sglang=={version}",), size_bytes=10**9)},
        refusals={"rocm": "sglang runs on NVIDIA only"},
    ),
)


class Options(Model):
    """`engine_args`."""

    tensor_parallel_size: int = 1
    """GPUs that share the model."""
    max_model_len: int | None = None
    """Tokens of one request and its answer."""
    max_lora_rank: int | None = None
    """Largest rank of an adapter."""
    hf_overrides: dict[str, int] = {}
    """Changes of the model's configuration."""


def planned(options):
    return {"tensor": options.tensor_parallel_size, "max_model_len": options.max_model_len}


def supports(quantization, gpu):
    if gpu is None:
        return Support(ok=False, reason="no NVIDIA GPU")
    if quantization == "fp8" and gpu.arch == "sm_80":
        return Support(ok=False, reason=f"fp8 needs Ada or Hopper, not {gpu.kind}")
    return Support(ok=True)


def refuses(adapter, quantization):
    return ["it does not load DoRA; export it merged"] if adapter.use_dora and quantization == LORA else []


def command(launch, options):
    served = launch.installed.program("sglang-serve")
    settings = str(launch.directory / "sglang.yaml")
    return [*served, str(launch.model), "--host", launch.host, "--port", str(launch.port), "--config", settings]


def files(launch, options):
    return {"sglang.yaml": f"name: {launch.alias}\ntensor_parallel_size: {options.tensor_parallel_size}\n"}


def environment(launch, options):
    return {"SGLANG": "yes please"}
