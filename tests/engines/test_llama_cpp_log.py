"""Why llama.cpp's server ended, from what it said; its CPU build has written each line but those of CUDA and HIP."""

import pytest

from orchestrator.engines import llama_cpp

FAILED = "0.00.008.272 E srv          init: exiting due to model loading error\nllama_server: Failed to init server"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            "0.00.002.590 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18991",
            "port 18991 of 127.0.0.1 is in use",
        ),
        ("0.02.107.185 E llama_init_from_model: failed to initialize the context: std::bad_alloc", "out of memory"),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of"
            " memory\nalloc_tensor_range: failed to allocate CUDA0 buffer of size 4294967296",
            "lower n_ctx or parallel",
        ),
        (
            "0.00.015.517 E llama_model_load: error loading model: unknown model architecture: 'lxama'",
            "does not know the architecture 'lxama'",
        ),
        ("0.00.008.342 E gguf_init_from_reader: invalid magic characters: 'XXXX', expected 'GGUF'", "is not GGUF"),
        ("0.00.011.341 E gguf_init_from_reader: failed to read magic", "is not GGUF"),
        (
            "0.00.003.023 E gguf_init_from_reader: this GGUF file is version 99 but this software only supports up to"
            " version 3",
            "of GGUF version 99",
        ),
        (
            "0.00.043.655 E llama_model_load: error loading model: tensor 'blk.0.ffn_gate.weight' data is not within"
            " the file bounds, model is corrupted or incomplete",
            "the file is cut: blk.0.ffn_gate.weight lies beyond its end",
        ),
        (
            "ggml_validate_row_data: found nan value at block 0\n0.00.022.144 E load_all_data: tensor"
            " 'blk.1.ffn_down.weight' has invalid data",
            "the file is damaged: blk.1.ffn_down.weight holds what is no number",
        ),
        (
            "0.00.012.658 E llama_model_load: error loading model: check_tensor_dims: tensor 'token_embd.weight' has"
            " wrong shape; expected    256,    400, got    256,    512,      1,      1",
            "token_embd.weight should be 256, 400 and is 256, 512, 1, 1",
        ),
        (
            "0.00.007.633 E gguf_init_from_file: failed to open GGUF file 'nofile.gguf' (No such file or directory)",
            "there is no file nofile.gguf",
        ),
        (
            "0.00.018.027 E llama_init_from_model: quantized V cache requires flash_attn to be enabled",
            "set flash_attn to on",
        ),
        (
            "0.00.013.571 E llama_adapter_lora_init_impl: failed to apply lora adapter: tensor 'blk.0.attn_k.weight' "
            "has incorrect shape (hint: maybe wrong base model?)",
            "the adapter belongs to another base",
        ),
        ("CUDA error: no kernel image is available for execution on the device", "was built for other GPUs"),
        ("ROCm error: unspecified launch failure", "its GPU failed: unspecified launch failure"),
    ],
)
def test_a_cause_is_found_in_the_log_and_comes_with_what_would_do(said, cause):
    told = llama_cpp.diagnose(f"0.00.000.306 I srv          init: initializing ...\n{said}\n{FAILED}")
    assert told is not None
    assert cause in told
    assert "\n" not in told


def test_a_log_without_a_known_cause_tells_none():
    warned = "W llama_context: n_ctx_seq (512) > n_ctx_train (256) -- possible training context overflow"
    assert llama_cpp.diagnose(warned) is None
