"""Makes GGUF files: converted by llama.cpp's own script, quantized by its own programs, calibrated on training rows.

    used = quantize(source, "Q4_K_M", out, tools)      # out/model.gguf, out/calibration.json

A quantization of less than 8 bits is made of a file as wide as the model itself, with an importance matrix: how much
each input of a matrix matters, measured on chats as the model was trained on them. llama.cpp measures it on chunks of
one long text, whatever chats a chunk begins and ends in. Further quantizations of the same model use both again.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator import processes
from orchestrator.engines import _llama_cpp_gguf as gguf_file
from orchestrator.engines._llama_cpp_environments import CONVERTER, script
from orchestrator.engines._llama_cpp_record import Calibration
from orchestrator.engines.base import Source, Tools
from orchestrator.environments.environment import Installed
from orchestrator.errors import InfrastructureError, InputError

MODEL, CALIBRATION = "model.gguf", "calibration.json"
CONVERTED = ("F32", "F16", "BF16", "Q8_0")
"""Formats that the converter writes itself."""
UNWEIGHTED = ("TQ1_0", "TQ2_0", "MXFP4_MOE")
"""Formats that make no use of an importance matrix."""
WEIGHTED_ONLY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "Q2_K_S")
"""Formats that llama-quantize refuses without one, or that are garbage without it."""
CALIBRATION_TOKENS = 128 * 512
"""Enough: what llama.cpp's own examples and the published importance matrices use."""
_LONGEST_CHUNK, _SHORTEST_CHUNK = 512, 16
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_PYTHON_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception): .+")
_SAID_ERROR = re.compile(r"^ERROR:|\bfailed\b|\berror\b|not found", re.IGNORECASE)
_REMEDIES = {
    "Quant method is not yet supported": "export the merged model, which is not quantized, or dequantize it first",
    "BPE pre-tokenizer was not recognized": "llama.cpp knows BPE tokenizers by their digest: use a base whose"
    " tokenizer it knows, or one with a SentencePiece tokenizer.model",
    "not supported": "export it for another engine: this llama.cpp does not know the architecture",
    "issing importance matrix": "calibrate on more rows, or choose a wider quantization",
}


def convert(model: Path, made: Path, kind: str, tools: Tools) -> None:
    """Write `made` out of a model's folder in one of the CONVERTED formats. Raises InputError where that cannot be."""
    missing = [name for name in _NEEDED if not (model / name).exists()]
    if missing:
        raise InputError(
            f"{model} cannot be converted: it has no {', no '.join(missing)}",
            next_step="copy the files from the base model; without its tokenizer a model cannot be served",
        )
    arguments = [str(model), "--outfile", str(made), "--outtype", kind.lower()]
    run([*script(tools.site, CONVERTER), *arguments], f"llama.cpp cannot convert {model}", tools)


def quantize(source: Source, quantization: str, out: Path, tools: Tools, programs: Installed) -> bool:
    """Write `out`/model.gguf; whether an importance matrix was used. Raises InputError where one is missing."""
    needed = quantization in WEIGHTED_ONLY
    if needed and source.rows is None:
        raise _too_few(quantization)
    plain = tools.shared / "plain.gguf"
    if not plain.exists():
        tools.shared.mkdir(exist_ok=True)
        convert(source.merged, plain, plain_type(source.merged), tools)
    matrix = None if quantization in UNWEIGHTED else importance(source, plain, tools, programs)
    if needed and matrix is None:
        raise _too_few(quantization)
    weighted = ["--imatrix", str(matrix)] if matrix else []
    command = [*programs.program("llama-quantize"), *weighted, str(plain), str(out / MODEL), quantization]
    run(command, f"llama-quantize cannot make {quantization}", tools)
    if matrix:
        shutil.copy(matrix.with_name(CALIBRATION), out)
    return matrix is not None


def importance(source: Source, plain: Path, tools: Tools, programs: Installed) -> Path | None:
    """The importance matrix, and what it was computed from as calibration.json, both beside `plain`.

    None where there are no rows, or not enough for two chunks.
    """
    if source.rows is None:
        return None
    text, made = plain.with_name("calibration.txt"), plain.with_name("imatrix.gguf")
    if made.exists():
        return made
    asked = {"model": str(source.merged), "rows": str(source.rows), "seed": source.seed, "out": str(text)}
    drawn = tools.worker("calibration_text", {**asked, "tokens": CALIBRATION_TOKENS})
    chunk = chunk_tokens(drawn["tokens"])
    if not chunk:
        return None
    tools.say(f"importance matrix: {drawn['rows']} training chats, {drawn['tokens']} tokens in chunks of {chunk}")
    command = [*programs.program("llama-imatrix"), "--model", str(plain), "--file", str(text)]
    command += ["--output-file", str(made), "--ctx-size", str(chunk), "--parse-special", "--no-ppl"]
    run(command, "llama-imatrix cannot compute the importance matrix", tools)
    calibration = Calibration(rows=drawn["rows"], tokens=gguf_file.calibration_tokens(made), seed=source.seed)
    plain.with_name(CALIBRATION).write_text(calibration.model_dump_json(indent=2) + "\n")
    return made


def plain_type(model: Path) -> str:
    """The format as wide as the model's own weights: BF16, F16, else F32."""
    config = json.loads((model / "config.json").read_text())
    return {"bfloat16": "BF16", "float16": "F16"}.get(config.get("dtype") or config.get("torch_dtype"), "F32")


def chunk_tokens(tokens: int) -> int:
    """Tokens of one chunk: a power of two, as it must divide the batch, and twice in the text; 0: it is too short."""
    longest = min(_LONGEST_CHUNK, tokens // 2)
    return 2 ** (longest.bit_length() - 1) if longest >= _SHORTEST_CHUNK else 0


def run(command: Sequence[str], failed: str, tools: Tools) -> None:
    """A program to its end. Raises InputError with the reason it gives; InfrastructureError if it was killed."""
    before = tools.log.stat().st_size if tools.log.exists() else 0
    code = processes.start(list(command), log=tools.log).wait()
    if code == 0:
        return
    if code > 128:
        raise InfrastructureError(
            f"{failed}: it was ended by {processes.died_of(code)}", next_step=f"it may lack memory; read {tools.log}"
        )
    with tools.log.open(errors="replace") as log:
        log.seek(before)
        cause = reason(log.read())
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in cause), f"read {tools.log}")
    raise InputError(f"{failed}: {cause}", next_step=remedy)


def reason(said: str) -> str:
    """The line of a program's output that tells why it failed (pure)."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for pattern in (_PYTHON_ERROR, _SAID_ERROR):
        found = [line for line in lines if pattern.search(line)]
        if found:
            return found[-1]
    return lines[-1] if lines else "it said nothing"


def _too_few(quantization: str) -> InputError:
    return InputError(
        f"{quantization} needs an importance matrix, and there are too few training rows to compute it from",
        next_step="export it in a recipe that has datasets, or choose a wider quantization such as Q4_K_M",
    )
