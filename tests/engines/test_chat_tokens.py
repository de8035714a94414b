"""Chats as tokens by a model's files: the same as transformers makes of them."""

import json

import pytest

from orchestrator.engines import _chat_tokens

MESSAGES = [{"role": "user", "content": "Name it: <b>"}, {"role": "assistant", "content": "MIT"}]


def test_a_template_is_rendered_with_the_settings_of_transformers():
    text = "{%- for m in messages %}\n  {% if m.role == 'x' %}{% break %}{% endif %}\n{{ bos_token }}{{ m | tojson }}\n"
    text += "{%- endfor %}{{ 'A' if add_generation_prompt }}"
    rendered = _chat_tokens.render(text, MESSAGES[:1], {"bos_token": "<s>"})
    assert rendered == '<s>{"role": "user", "content": "Name it: <b>"}A'


@pytest.mark.parametrize("text", ["{{ raise_exception('no system role') }}", "{% generation %}x{% endgeneration %}"])
def test_a_template_that_cannot_be_rendered_here_tells_nothing(text):
    assert _chat_tokens.render(text, MESSAGES, {}) is None


def test_a_template_may_lie_in_the_tokenizers_settings(tmp_path):
    assert _chat_tokens.template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old"}))
    assert _chat_tokens.template(tmp_path) == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert _chat_tokens.template(tmp_path) == "new"
    assert _chat_tokens.prompt_ids(tmp_path, MESSAGES) is None, "there is no tokenizer"


@pytest.mark.slow
def test_the_tokens_are_those_of_transformers(tmp_path):
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    from tests import tiny_model

    base = tiny_model.build_base(tmp_path / "base")
    expected = AutoTokenizer.from_pretrained(base).apply_chat_template(
        MESSAGES[:1], add_generation_prompt=True, return_dict=False
    )
    assert _chat_tokens.prompt_ids(base, MESSAGES[:1]) == expected
