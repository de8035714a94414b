"""What part of a GPU's peaks an engine reaches: fitted where it was measured, assumed with a wide interval where not.

`fitted.yaml` is written by benchmarks/planner_serving.py from published TensorRT-LLM measurements. Other
engines are described against it by the figures below, each from the literature; their predictions say so.
"""

import math
from functools import cache
from pathlib import Path

import yaml

from orchestrator.config import Model
from orchestrator.planner.serving.step import Efficiency

FILE = Path(__file__).with_name("fitted.yaml")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Fitted(Model):
    """Constants that were fitted on measurements of TensorRT-LLM."""

    date: str
    """Of the fit."""
    source: str
    """Which measurements."""
    rows: int
    """How many."""
    memory: float
    """Part of the peak bandwidth while weights are read."""
    cache: float
    """Part of the peak bandwidth while keys and values are read."""
    compute: dict[str, float]
    """Part of the peak FLOP/s of dense products, by architecture; `other`: where nothing was measured."""
    grouped: float
    """Part of that in the products of routed experts."""
    attention: float
    """Part of the 16-bit peak in the attention of prompts."""
    link: float
    """Part of the bandwidth between GPUs."""
    reduce_s: float
    """Latency of an all-reduce."""
    step_s: float
    """Of each step."""
    layer_s: float
    """Of each layer of each step."""
    sequence_s: float
    """Of each sequence of each step, in an engine that schedules in C++."""
    python_sequence_s: float
    """And in one that schedules in Python."""
    request_s: float
    """Of each request."""
    overlap: float
    """Exponent that joins reading and computing."""
    spread: dict[str, float]
    """90th percentile of |log(predicted / measured)| of a source left out of the fit: throughput, ttft, tpot."""


class Habits(Model):
    """One engine against the fitted one."""

    memory: float = 1.0
    """Times the part of the bandwidth."""
    read: dict[str, float] = {}
    """Times that again, by architecture."""
    compute: float = 1.0
    """Times the part of the FLOP/s."""
    packed: dict[str, float] = {}
    """Part of the int8 FLOP/s by architecture in the engine's own kernels for packed weights."""
    plain: dict[str, float] = {}
    """Part of the 16-bit FLOP/s by architecture in the engine's own way with plain weights."""
    attention: float = 1.0
    """Times the attention's part."""
    step: float = 1.0
    """Times the fitted time of a step."""
    layer: float = 1.0
    """Times the fitted time of a layer."""
    extra: float | None = None
    """Times that of what mixtures and other attention have beyond a dense layer; None: as a layer's."""
    python: bool = True
    """Schedules in Python."""
    sequence_s: float = 0.0
    """Beyond the fitted time of a sequence."""
    request_s: float = 0.0
    """Beyond the fitted time of a request."""
    widen: float = 1.0
    """Times the width of the interval, in logarithms: 1 where the engine was measured."""
    source: str
    """How an estimate names its origin."""


class Hardware(Model):
    """A kind of GPU against NVIDIA's data-centre parts, which were measured."""

    memory: float = 1.0
    """Times the part of the bandwidth."""
    reduce: float = 1.0
    """Times the latency of an all-reduce."""
    widen: float = 1.0
    """Times the width of the interval, in logarithms."""


ASSUMED = {
    "tensorrt_llm": Habits(source="predicted; fitted on published TensorRT-LLM measurements"),
    "tensorrt_llm_cpp": Habits(python=False, source="predicted; fitted on published TensorRT-LLM measurements"),
    # the same kernels (cuBLAS, CUTLASS, FlashAttention) behind a Python scheduler that works while the GPU does
    "vllm": Habits(
        sequence_s=3e-6, request_s=5e-3, widen=1.5, source="predicted; vLLM assumed near TensorRT-LLM, not calibrated"
    ),
    "sglang": Habits(request_s=5e-3, widen=1.5, source="predicted; SGLang assumed near TensorRT-LLM, not calibrated"),
    # its kernels for packed weights use int8 matrix units through mma.sync: a quarter of that peak on Ada (10.4e3
    # prompt tokens/s of an 8B Q4_0 on an RTX 4090, llama.cpp pull request 7676), less on data-centre parts, whose wider
    # units they do not use; products of 16 bits accumulate in 16 bits, which GeForce parts do at twice the peak of the
    # catalog (pull requests 3776, 4766, 6017). Kernels of 80 us a layer do not overlap: an 8B Q4 writes 130-150
    # tokens/s on an RTX 4090 and on an A100 alike (XiongjieDai/GPU-Benchmarks-on-LLM-Inference), where a mixture's take
    # 100 us. Its kernels keep too few reads in flight for wide memories: a 70B Q4_K_M writes 14.6 tokens/s on an RTX
    # A6000 of 0.77 TB/s, and only 22.1 on an A100 of 1.94 and 25.0 on an H100 PCIe of 2.0 (the same tables); a 31B 68
    # on an H100 of 3.35, 75 on a B300 of 8 (pavlokhmel.com, 2026-06-07). One CPU thread samples for all slots
    "llama_cpp": Habits(
        packed={"sm_80": 0.12, "sm_86": 0.2, "sm_89": 0.25, "sm_90": 0.07, "sm_120": 0.2, "other": 0.08},
        plain={"sm_80": 0.35, "sm_86": 0.6, "sm_89": 0.85, "sm_90": 0.16, "sm_120": 0.8, "other": 0.25},
        read={"sm_80": 0.65, "sm_90": 0.65, "sm_100": 0.35, "sm_103": 0.35},
        attention=0.5,
        step=0.3,
        layer=5.0,
        extra=1.0,
        sequence_s=150e-6,
        widen=2.0,
        source="predicted; llama.cpp assumed, not calibrated",
    ),
    # eager PyTorch: each kernel is launched from Python
    "transformers": Habits(
        memory=0.8, compute=0.8, layer=40.0, widen=2.5, source="predicted; transformers assumed, not calibrated"
    ),
}
"""By `EngineTraits.constants`."""
EAGER_LAYER = 10.0
"""Times the time of a layer when each kernel is launched anew: some 15 launches of 8 us."""
_AMD = Hardware(memory=0.85, reduce=2.0, widen=1.5)
HARDWARE = {"gfx942": _AMD, "gfx950": _AMD}
"""By architecture. 4.0-4.3 of 5.3 TB/s in stream benchmarks of MI300X, where NVIDIA's parts reach 92-94 %; small
all-reduces over its mesh take 25-30 us."""


@cache
def fitted() -> Fitted:
    """The constants that ship with the program."""
    with FILE.open(encoding="utf-8") as file:
        return Fitted.model_validate(yaml.load(file, _Loader))


def width(engine: str, arch: str, constants: Fitted, figure: str) -> float:
    """Factor from the middle of an estimate's interval to its ends; `figure`: throughput, ttft or tpot."""
    wider = ASSUMED[engine].widen * HARDWARE.get(arch, Hardware()).widen
    return math.exp(constants.spread[figure] * wider)


def efficiency(engine: str, arch: str, constants: Fitted, *, graphs: bool = True, packed: bool = False) -> Efficiency:
    """Of an engine (`EngineTraits.constants`) on an architecture; `packed`: its weights are computed in int8 packed."""
    habits, hardware = ASSUMED[engine], HARDWARE.get(arch, Hardware())
    reached = constants.compute.get(arch, constants.compute["other"])
    own = habits.packed if packed else habits.plain
    sequence = constants.python_sequence_s if habits.python else constants.sequence_s
    bandwidth = habits.memory * habits.read.get(arch, 1.0) * hardware.memory
    layer_s = constants.layer_s * (1 if graphs else EAGER_LAYER)
    return Efficiency(
        memory=constants.memory * bandwidth,
        cache=constants.cache * bandwidth,
        compute=own.get(arch, own["other"]) if own else reached * habits.compute,
        grouped=constants.grouped,
        attention=constants.attention * habits.attention * reached / constants.compute["sm_90"],
        link=constants.link,
        reduce_s=constants.reduce_s * hardware.reduce,
        step_s=constants.step_s * habits.step,
        layer_s=layer_s * habits.layer,
        extra_s=layer_s * (habits.layer if habits.extra is None else habits.extra),
        sequence_s=sequence + habits.sequence_s,
        request_s=constants.request_s + habits.request_s,
        overlap=constants.overlap,
    )
