"""What a probe finds out about a server, and what it says where there is nothing to measure."""

import socket

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen.probe import bases, probe
from tests.loadgen.fake_api import TEMPLATE_TOKENS, FakeApi, serving


def test_a_vllm_server_is_recognised_with_version_context_settings_and_tokenizer():
    models = [{"id": "m", "max_model_len": 4096}, {"id": "lora", "parent": "m"}]
    with serving(FakeApi(models=models)) as api:
        server = probe(api.url)
        assert (server.engine, server.engine_version, server.max_model_len) == ("vllm", "0.32.0", 4096)
        assert server.engine_args == {"block_size": "16", "enable_prefix_caching": "True"}
        assert server.model == "m"
        assert server.models == ("m", "lora")
        assert server.template_tokens == TEMPLATE_TOKENS
        assert server.tokenize is not None
        assert server.tokenize("one two three") == 3
        assert server.prompt_tokens is not None
        assert server.prompt_tokens("chat", "one two") == TEMPLATE_TOKENS + 2
        assert server.prompt_tokens("completions", "one two") == 3
    assert server.accepts_ignore_eos
    assert server.endpoint == "chat"


def test_a_llama_cpp_server_is_recognised():
    with serving(FakeApi(engine="llama_cpp", models=[{"id": "gguf"}])) as api:
        server = probe(api.url)
        assert (server.engine, server.engine_version, server.max_model_len) == ("llama_cpp", "b1-abc", 2048)
        assert server.engine_args == {"parallel": 4, "model_path": "/m.gguf", "n_ctx_per_slot": 2048}
        assert server.tokenize is not None
        assert server.tokenize("a b") == 2


def test_tensorrt_llm_has_no_tokenizer_to_ask():
    with serving(FakeApi(engine="tensorrt_llm", models=[{"id": "m"}])) as api:
        server = probe(api.url)
    assert (server.engine, server.engine_version) == ("tensorrt_llm", "0.32.0")
    assert server.tokenize is None
    assert server.template_tokens is None
    assert "/tokenize" not in [path for path, _ in api.asked]


def test_a_server_whose_streams_just_end_is_known():
    ends = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}\n\n'
    with serving(FakeApi()) as whole, serving(FakeApi(stream=lambda tokens: ends)) as api:
        assert probe(whole.url).says_done
        assert not probe(api.url).says_done


def test_what_each_request_must_say_is_said_from_the_first_on():
    with serving(FakeApi()) as api:
        server = probe(api.url, request_fields={"lora_request": {"lora_int_id": 7}})
        assert server.prompt_tokens is not None
        server.prompt_tokens("chat", "one")
    asked = [body for path, body in api.asked if path.endswith("/chat/completions")]
    assert [body["lora_request"] for body in asked] == [{"lora_int_id": 7}] * 2
    assert server.request_fields == {"lora_request": {"lora_int_id": 7}}


def test_an_unknown_server_is_measured_all_the_same():
    with serving(FakeApi(engine=None, tokenizes=False, models=[{"id": "m"}])) as api:
        server = probe(api.url)
    assert (server.engine, server.engine_version, server.max_model_len) == (None, None, None)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/models", "/v1/chat/completions"])
def test_the_url_may_be_given_with_or_without_v1(tail):
    with serving(FakeApi()) as api:
        assert probe(api.url.removesuffix("/v1") + tail).url == api.url


def test_an_api_without_v1_is_found_too():
    with serving(FakeApi(root="/openai", engine=None)) as api:
        assert probe(api.url).url == api.url


def test_a_scheme_may_be_left_out():
    assert bases("localhost:8000") == ["http://localhost:8000/v1", "http://localhost:8000"]
    assert bases("https://host/api/v1/") == ["https://host/api/v1"]


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http:///v1"])
def test_what_is_no_address_is_said(url):
    with pytest.raises(InputError, match="no address of a server"):
        bases(url)


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match=r"no server at .*: the connection was refused"):
            probe(f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_a_name_without_an_address():
    with pytest.raises(InputError, match=r"the name 'no-such-host\.invalid' has no address"):
        probe("http://no-such-host.invalid:8000/v1")


def test_a_port_that_is_none():
    with pytest.raises(InputError, match=r"no server at http://127\.0\.0\.1:many"):
        probe("http://127.0.0.1:many/v1")


def test_a_server_that_never_answers():
    late = pytest.raises(InputError, match=r"did not answer within 0\.2 s")
    with socket.create_server(("127.0.0.1", 0)) as silent, late:
        probe(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)


def test_https_to_a_server_without_tls():
    with serving(FakeApi()) as api, pytest.raises(InputError, match="does not speak TLS"):
        probe(api.url.replace("http:", "https:"))


def test_another_web_server_is_no_openai_api():
    with serving(FakeApi(root="/elsewhere")) as api:
        with pytest.raises(InputError, match=r"not an OpenAI API at .*answered 404: Not Found"):
            probe(api.url.removesuffix("/elsewhere"))
        with pytest.raises(InputError, match="does not generate"):
            probe(api.url.removesuffix("/elsewhere"), model="m")


def test_a_named_model_is_taken_on_trust_where_there_is_no_list():
    with serving(FakeApi(lists_models=False, engine=None)) as api:
        server = probe(api.url, model="mine")
    assert (server.url, server.model, server.models) == (api.url, "mine", ())


def test_a_key_is_asked_for_and_sent():
    with serving(FakeApi(key="secret")) as api:
        with pytest.raises(InputError, match=r"wants a key \(401\): Unauthorized") as caught:
            probe(api.url)
        assert "Authorization: Bearer KEY" in str(caught.value)
        api.headers.clear()
        assert probe(api.url, headers={"Authorization": "Bearer secret"}).model == "m"
    assert all(headers["authorization"] == "Bearer secret" for headers in api.headers)


def test_an_unknown_model_lists_what_there_is():
    with serving(FakeApi(models=[{"id": "llama"}, {"id": "qwen"}])) as api:
        with pytest.raises(InputError, match="has no model 'lama'; it has llama, qwen") as caught:
            probe(api.url, model="lama")
        assert "did you mean 'llama'?" in str(caught.value)


def test_of_several_models_one_must_be_named():
    with serving(FakeApi(models=[{"id": "a"}, {"id": "b"}])) as api:
        with pytest.raises(InputError, match="has 2 models: a, b"):
            probe(api.url)
        assert probe(api.url, model="b").model == "b"


def test_ignore_eos_is_left_out_where_it_is_refused():
    with serving(FakeApi(refuses=("ignore_eos",))) as api:
        server = probe(api.url)
    assert not server.accepts_ignore_eos
    assert server.endpoint == "chat"


@pytest.mark.parametrize("status", [400, 404])
def test_a_model_without_a_chat_template_is_asked_for_completions(status):
    with serving(FakeApi(chat=status)) as api:
        server = probe(api.url)
        assert (server.endpoint, server.accepts_ignore_eos) == ("completions", True)
        with pytest.raises(InputError, match=r"does not generate: /chat/completions .*no chat template"):
            probe(api.url, endpoint="chat")


def test_a_server_that_fails_says_its_own_words():
    with serving(FakeApi(chat=500)) as api, pytest.raises(InputError, match="answered 500: no chat template"):
        probe(api.url)
    assert [path for path, _ in api.asked].count("/v1/chat/completions") == 1


def test_a_stream_without_usage_is_refused():
    bare = FakeApi(stream=lambda _: b'data: {"choices": []}\n\ndata: [DONE]\n\n')
    with serving(bare), pytest.raises(InputError, match="streams without usage"):
        probe(bare.url)


def test_an_answer_that_is_no_stream_is_refused():
    whole = FakeApi(stream=lambda _: b'{"choices": [], "object": "chat.completion"}')
    with serving(whole), pytest.raises(InputError, match="does not stream"):
        probe(whole.url)


def test_an_error_inside_the_stream_is_told():
    broken = FakeApi(stream=lambda _: b'data: {"error": {"message": "out of memory"}}\n\n')
    with serving(broken), pytest.raises(InputError, match=r"does not generate: .*out of memory"):
        probe(broken.url)


def test_the_first_token_is_asked_for_with_every_parameter():
    with serving(FakeApi()) as api:
        probe(api.url)
    body = next(body for path, body in api.asked if path == "/v1/chat/completions")
    assert {
        "max_tokens": 1,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }.items() <= body.items()
