"""K-quants and IQ types by llama.cpp's own programs, on a model with rows of 256; and what a damaged file does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.engines import _llama_cpp_export as making
from orchestrator.engines import _llama_cpp_gguf as gguf_file
from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines import llama_cpp
from orchestrator.engines._llama_cpp_environments import quantizer
from orchestrator.engines.base import Source
from orchestrator.engines.client import Sampling
from orchestrator.environments.environment import OWN
from orchestrator.errors import EngineError, InputError
from orchestrator.stages._divergence import kl_of_top
from orchestrator.stats import mean
from orchestrator.token_contract import FILE, Golden, TokenContract
from tests.engines.tiny_gguf import SITE, changed, export, serving, set_config, tools

BLOCK = {"Q4_K": 144, "Q6_K": 210, "F32": 4}
"""Bytes of a block."""
FAMILIES = ("Q5_1", "Q6_K", "Q3_K_L", "Q2_K_S", "IQ4_XS", "IQ3_XS", "IQ2_M", "IQ1_M", "TQ1_0", "MXFP4_MOE")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Source:
    """A model that answers rightly and ends by itself, and the chats that it was trained on."""
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("tuned")
    base = tiny_model.build_base(folder / "base", hidden_size=256)
    merged = tiny_model.build_full(base, folder / "merged")
    shutil.copy(base / "tokenizer.model", merged)
    set_config(merged, "tokenizer_config.json", add_bos_token=False)  # as the merge worker says it
    return Source(merged=merged, base=base, rows=tiny_model.write_rows(folder / "rows.jsonl", 60))


@pytest.fixture(scope="module")
def small(tuned, tmp_path_factory) -> Path:
    """Q4_K_M with the token contract, as the export stage leaves it."""
    out = export(tuned, "Q4_K_M", tmp_path_factory.mktemp("exports"))
    (out / FILE).write_text(contract(tuned.merged).model_dump_json())
    return out


def contract(merged: Path) -> TokenContract:
    """Of the tuned model and its first training chat."""
    from transformers import AutoTokenizer

    from tests import tiny_model

    tokenizer, messages = AutoTokenizer.from_pretrained(merged), tiny_model.rows(1)[0]["messages"]
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    golden = Golden(
        messages=messages[:1], prompt_ids=prompt, answer_ids=[], text=messages[1]["content"], ended=True, max_tokens=32
    )
    return TokenContract(
        chat_template=tokenizer.chat_template, special_tokens={}, stop_ids=[5], vocabulary=512, golden=golden
    )


@pytest.mark.parametrize(("tokens", "chunk"), [(65536, 512), (1023, 256), (1920, 512), (32, 16), (31, 0), (0, 0)])
def test_a_chunk_is_a_power_of_two_that_the_text_has_twice(tokens, chunk):
    assert making.chunk_tokens(tokens) == chunk


@pytest.mark.parametrize(
    ("config", "kind"),
    [({"dtype": "bfloat16"}, "BF16"), ({"torch_dtype": "float16"}, "F16"), ({"dtype": "float32"}, "F32"), ({}, "F32")],
)
def test_a_quantization_starts_from_a_file_as_wide_as_the_model(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert making.plain_type(tmp_path) == kind


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Traceback:\n  File x\nNotImplementedError: Quant method\nexiting", "NotImplementedError: Quant method"),
        ("INFO:a:b\nERROR:hf-to-gguf:Model X is not supported\n", "ERROR:hf-to-gguf:Model X is not supported"),
        ("loading\nllama_quantize: failed to quantize model\n\n", "llama_quantize: failed to quantize model"),
        ("no reason\n", "no reason"),
        ("", "it said nothing"),
    ],
)
def test_the_reason_of_a_failure_is_one_line_of_what_a_program_said(said, told):
    assert making.reason(said) == told


@pytest.mark.slow
@pytest.mark.engine
def test_a_k_quant_is_calibrated_on_the_training_chats_and_says_what_it_is(tuned, small):
    calibration = records.Calibration.model_validate_json((small / making.CALIBRATION).read_text())
    assert (calibration.rows, calibration.seed) == (60, tuned.seed)
    assert 1500 < calibration.tokens <= 3 * 512, "markers count as one token; as text they would double the chats"
    record = records.read(small)
    assert record is not None
    assert (record.quantization, record.file_type, record.imatrix) == ("Q4_K_M", "Q4_K_M", True)
    assert set(record.types) == {"Q4_K", "Q6_K", "F32"}
    assert 4.8 < record.bits_per_weight < 5.2
    assert record.made_by["quantizer"].startswith("llama_cpp_tools")
    assert sorted(path.name for path in small.iterdir() if path.name != FILE) == [
        "calibration.json",
        "export.json",
        "model.gguf",
    ]


@pytest.mark.slow
@pytest.mark.engine
def test_another_k_quant_of_a_model_is_made_of_the_same_conversion_and_importance_matrix(tuned, tmp_path):
    said: list[str] = []
    log = tools(tmp_path, said)
    outs = [tmp_path / name for name in ("Q4_K_M", "Q5_K_M")]
    for out in outs:
        out.mkdir()
        llama_cpp.export(tuned, out.name, out, log)
    assert len([line for line in said if line.startswith("importance matrix: ")]) == 1
    assert log.log.read_text().count("Model successfully exported") == 1
    assert len({(out / making.CALIBRATION).read_bytes() for out in outs}) == 1
    kept = [records.read(out) for out in outs]
    assert [record and (record.quantization, record.imatrix) for record in kept] == [("Q4_K_M", True), ("Q5_K_M", True)]


@pytest.mark.slow
@pytest.mark.engine
def test_a_k_quant_is_ready_by_its_token_contract_and_answers_as_trained(small, tmp_path):
    with serving(small, tmp_path) as served:
        kept = contract_of(small)
        answer = served.chat(kept.messages, Sampling(max_tokens=32))
        assert (answer.text, answer.finish_reason) == (kept.text, "stop")


def contract_of(folder: Path) -> Golden:
    golden = TokenContract.model_validate_json((folder / FILE).read_text()).golden
    assert golden is not None
    return golden


@pytest.mark.parametrize("quantization", making.WEIGHTED_ONLY)
def test_what_needs_an_importance_matrix_is_refused_without_rows_before_anything_runs(tmp_path, quantization):
    with pytest.raises(InputError, match=f"{quantization} needs an importance matrix"):
        making.quantize(Source(merged=tmp_path), quantization, tmp_path, tools(tmp_path), OWN)


@pytest.mark.slow
@pytest.mark.engine
def test_types_of_llama_quantize_are_recognized_in_their_files(tuned, tmp_path):
    """One of each family, with one importance matrix and one plain file for all of them."""
    plain, log = tmp_path / "plain.gguf", tools(tmp_path)
    programs = quantizer(SITE)
    making.convert(tuned.merged, plain, "F32", log)
    matrix = making.importance(tuned, plain, log, programs)
    for name in FAMILIES:
        made = tmp_path / f"{name}.gguf"
        command = [*programs.program("llama-quantize"), "--imatrix", str(matrix), str(plain), str(made), name]
        making.run(command, name, log)
        header = gguf_file.read(made)
        alike = [other for other in llama_cpp.QUANTIZATIONS if not gguf_file.type_problems(header, other)]
        assert alike == [name]


@pytest.mark.slow
@pytest.mark.engine
def test_rows_that_do_not_fit_fall_back_and_the_run_is_told(tmp_path):
    pytest.importorskip("torch")
    from tests import tiny_model

    said: list[str] = []
    out = tmp_path / "out"
    out.mkdir()
    model = Source(merged=tiny_model.build_base(tmp_path / "base"))
    llama_cpp.export(model, "Q4_K_M", out, tools(tmp_path, said))
    assert said[-1] == "Q4_K_M: 6.75 bits a weight; rows that 256 does not divide: 12 in Q5_0, 3 in Q8_0"
    assert not (out / making.CALIBRATION).exists(), "there were no rows"


def damaged(export: Path, folder: Path, how: Callable[[bytes, int], bytes]) -> Path:
    """A copy whose last layer holds other bytes."""
    wrong = changed(export, folder)
    layer = [one for one in gguf_file.read(wrong / llama_cpp.MODEL).tensors if one.name.startswith("blk.1.")]
    with (wrong / llama_cpp.MODEL).open("r+b") as file:
        for tensor in layer:
            file.seek(tensor.offset)
            found = file.read(tensor.bytes)
            file.seek(tensor.offset)
            file.write(how(found, BLOCK[tensor.type]))
    return wrong


def flipped(found: bytes, block: int) -> bytes:
    return bytes(byte ^ 0xFF for byte in found)


def shuffled(found: bytes, block: int) -> bytes:
    """The same blocks of numbers in another order: each of them is sound."""
    blocks = [found[start : start + block] for start in range(0, len(found), block)]
    return b"".join(blocks[1::2] + blocks[::2])


@pytest.mark.slow
@pytest.mark.engine
def test_a_layer_of_what_is_no_number_is_found_when_it_is_loaded(small, tmp_path):
    wrong = damaged(small, tmp_path / "wrong", flipped)
    with (
        pytest.raises(EngineError, match=r"the file is damaged: blk\.1\.\S+ holds what is no number"),
        serving(wrong, tmp_path),
    ):
        pytest.fail("it was served")


@pytest.mark.slow
@pytest.mark.engine
def test_a_layer_of_wrong_numbers_is_served_without_a_word_and_breaks_parity(small, tmp_path):
    """It answers in the form that it was taught, so it ends by itself; only what it answers is wrong."""
    wrong = damaged(small, tmp_path / "wrong", shuffled)
    golden = contract_of(small)
    with serving(small, tmp_path) as sound, serving(wrong, tmp_path / "log") as broken:
        told = [
            [llama_cpp.next_token_logprobs(served.launch, golden.prompt_ids[:end], 100) for end in range(1, 27)]
            for served in (sound, broken)
        ]
        assert broken.chat(golden.messages, Sampling(max_tokens=32)).text != golden.text
    assert mean([kl_of_top(one, one) for one in told[0]]) < 1e-9
    assert mean([kl_of_top(one, other) for one, other in zip(*told, strict=True)]) > 0.1


@pytest.mark.slow
@pytest.mark.engine
def test_a_file_with_another_template_is_not_ready(tuned, small, tmp_path):
    """An export of a model whose template was changed after training, held to the contract of its training."""
    other = changed(tuned.merged, tmp_path / "merged")
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
    out = export(Source(merged=other), "Q8_0", tmp_path)
    shutil.copy(small / FILE, out)
    with pytest.raises(EngineError, match="its chat template is not the one of training"), serving(out, tmp_path):
        pytest.fail("it counted as ready")
