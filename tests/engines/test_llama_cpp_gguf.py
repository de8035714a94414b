"""What a GGUF file's header must say, on headers that are made up; and the digest that a file is held to."""

from pathlib import Path
from typing import Any

import numpy
import pytest

from orchestrator.engines import _llama_cpp_gguf as gguf_file
from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines import llama_cpp
from orchestrator.engines._llama_cpp_gguf import Header, Tensor
from orchestrator.errors import InputError

FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "IQ3_XS": 22, "IQ2_M": 29, "MXFP4_MOE": 38}


class Field:
    """A field as the reader gives it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def contents(self) -> Any:
        return self._value


def header(file_type: str, types: dict[str, str], width: int = 256) -> Header:
    """Of a file whose matrices have these types."""
    tensors = [Tensor(f"blk.0.{name}.weight", kind, (width, 64), 8 * width, 4096) for name, kind in types.items()]
    norm = Tensor("blk.0.ffn_norm.weight", "F32", (width,), 4 * width, 512)
    return Header(Path("m.gguf"), {"general.file_type": Field(FILE_TYPES[file_type])}, [*tensors, norm])


@pytest.mark.parametrize(
    ("quantization", "up"),
    [("Q4_K_M", "Q4_K"), ("Q8_0", "Q8_0"), ("F16", "F16"), ("IQ3_XS", "IQ3_XXS"), ("IQ2_M", "IQ2_S")],
)
def test_a_file_in_the_type_that_was_asked_has_no_problem(quantization, up):
    made = header(quantization, {"ffn_up": up, "ffn_down": "Q6_K", "attn_v": "Q6_K"})
    assert gguf_file.type_problems(made, quantization) == []


def test_a_file_of_another_quantization_is_named_twice():
    made = header("Q8_0", {"ffn_up": "Q8_0", "ffn_down": "Q8_0"})
    assert gguf_file.type_problems(made, "Q4_K_M") == [
        "it says that it is Q8_0, not Q4_K_M",
        "1 of its matrices are not in the type of Q4_K_M: blk.0.ffn_up.weight is Q8_0",
    ]


def test_a_file_whose_word_is_right_and_whose_matrices_are_not_is_noticed():
    made = header("Q4_K_M", {"ffn_up": "Q5_K", "ffn_down": "Q6_K"})
    assert gguf_file.type_problems(made, "Q4_K_M") == [
        "1 of its matrices are not in the type of Q4_K_M: blk.0.ffn_up.weight is Q5_K"
    ]


@pytest.mark.parametrize(("width", "problems"), [(64, 0), (256, 1)])
def test_another_type_is_right_only_where_the_rows_are_no_multiple_of_a_block(width, problems):
    made = header("Q4_K_M", {"ffn_up": "Q5_0"}, width)
    assert len(gguf_file.type_problems(made, "Q4_K_M")) == problems
    assert gguf_file.fallen_back(made, "Q4_K_M") == ({"Q5_0": 1} if width == 64 else {})


def test_rows_that_32_does_not_divide_stay_in_16_bits():
    assert gguf_file.type_problems(header("Q8_0", {"ffn_up": "F16"}, 80), "Q8_0") == []
    assert gguf_file.fallen_back(header("Q8_0", {"ffn_up": "F16"}, 80), "Q8_0") == {}


def test_experts_that_were_trained_in_mxfp4_keep_it():
    assert gguf_file.type_problems(header("F16", {"ffn_up_exps": "MXFP4"}), "F16") == []


def test_every_quantization_has_a_number_in_a_files_header():
    import gguf

    plain = [name for name in llama_cpp.QUANTIZATIONS if name != "lora"]
    known = {kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    assert set(plain) - known == set()


@pytest.mark.parametrize("content", [b"", b"XXXX" + bytes(64), b"GGUF\x03\0\0\0\xff\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"])
def test_what_is_not_a_whole_gguf_file_is_refused(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a whole GGUF file"):
        gguf_file.read(path)


def write(path: Path, file_type: str, alpha: float | None = None) -> Path:
    """A whole file: of a model, or with an alpha of an adapter."""
    import gguf

    out = gguf.GGUFWriter(path, "llama")
    name = "blk.0.ffn_up.weight"
    if alpha is None:
        out.add_file_type(FILE_TYPES[file_type])
    else:
        out.add_float32("adapter.lora.alpha", alpha)
        out.add_tensor(f"{name}.lora_a", numpy.ones((4, 8), numpy.float32))
        name = f"{name}.lora_b"
    out.add_tensor(name, numpy.ones((8, 4), numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def test_a_file_is_held_to_what_stands_before_its_weights(tmp_path):
    model, adapter = write(tmp_path / "model.gguf", "F16"), tmp_path / "adapter.gguf"
    record = records.of_files(gguf_file.read(model), None, "F16", {})
    records.write(record, tmp_path)
    assert records.read(tmp_path) == record
    assert records.broken(record, model, adapter) == []
    write(model, "Q8_0")
    assert records.broken(record, model, adapter) == ["its quantization is Q8_0, not F16"]
    model.write_bytes(model.read_bytes().replace(b"llama", b"lxama"))
    assert records.broken(record.model_copy(update={"file_type": "Q8_0"}), model, adapter) == [
        "its files do not begin as those that were exported"
    ]


def test_an_adapter_is_held_to_its_scale(tmp_path):
    model, adapter = write(tmp_path / "model.gguf", "F16"), write(tmp_path / "adapter.gguf", "", alpha=32)
    record = records.of_files(gguf_file.read(model), gguf_file.read(adapter), "lora", {})
    assert record.adapter == records.AdapterRecord(rank=4, alpha=32, tensors=2)
    assert records.broken(record, model, adapter) == []
    write(adapter, "", alpha=8)
    assert records.broken(record, model, adapter) == [
        "its adapter is rank=4 alpha=8.0 tensors=2, not rank=4 alpha=32.0 tensors=2"
    ]
    adapter.unlink()
    assert records.broken(record, model, adapter) == ["its adapter is None, not rank=4 alpha=32.0 tensors=2"]


def test_a_folder_without_a_record_has_none_and_a_broken_one_is_refused(tmp_path):
    assert records.read(tmp_path) is None
    (tmp_path / records.FILE).write_text("{}")
    with pytest.raises(InputError, match="is not the record of an export"):
        records.read(tmp_path)
