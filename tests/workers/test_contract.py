"""The token contract of a tiny trained model: what is chosen as golden, and a merged folder that would not keep it."""

import json
import shutil
from pathlib import Path

import pytest

from orchestrator import token_contract
from orchestrator.errors import InputError

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("contract")
    return tiny_model.build_adapter(tiny_model.build_base(folder / "base"), folder / "adapter", "lora")


def merge(tuned: Path, out: Path) -> Path:
    from orchestrator.workers import merge

    merge.work({"tuned": str(tuned), "out": str(out)})
    return out


def test_the_golden_conversation_is_a_training_row_whose_answer_ends_by_itself(adapter):
    from tests import tiny_model

    contract = token_contract.read(adapter)
    golden = contract.golden
    assert golden.ended
    assert [*golden.messages, {"role": "assistant", "content": golden.text}] in [
        row["messages"] for row in tiny_model.rows()
    ]
    assert golden.answer_ids[-1] in contract.stop_ids
    assert golden.max_tokens > len(golden.answer_ids)
    assert contract.special_tokens["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in contract.special_tokens["additional_special_tokens"]


def test_the_shortest_rows_are_tried_and_no_prompt_twice():
    from orchestrator.workers.contract import CANDIDATES, candidates

    def row(prompt: str, answer: str) -> dict:
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}

    rows = [row("long" * 9, "a"), row("b", "x"), row("b", "y"), *(row(str(n), "yes") for n in range(9))]
    found = [found["messages"][0]["content"] for found in candidates(rows)]
    assert found[:2] == ["b", "0"]
    assert len(found) == CANDIDATES
    assert candidates([{"messages": [{"role": "assistant", "content": "I speak first"}]}]) == []


def test_a_model_that_does_not_end_has_a_short_golden_answer_that_says_so(adapter, tmp_path):
    from orchestrator.workers import contract
    from tests import tiny_model

    endless = tiny_model.build_adapter(adapter.parent / "base", tmp_path / "endless", "lora", ends=False)
    golden = token_contract.read(endless).golden
    assert golden.text.startswith("Licence:")
    assert not golden.ended
    assert len(golden.answer_ids) == golden.max_tokens == contract.CUT_ANSWER


def test_sampling_defaults_of_the_base_are_kept_as_they_came(adapter):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from orchestrator.workers import contract

    base = adapter.parent / "base"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, eos_token_id=[5])
    found = contract.of_model(model, tokenizer, [], [5], model.generation_config)
    assert found.generation == {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    assert found.golden is None
    assert model.generation_config.temperature == 0.6


def test_the_merged_model_has_the_contract_of_its_adapter(adapter, tmp_path):
    merged = merge(adapter, tmp_path / "merged")
    assert token_contract.read(merged) == token_contract.read(adapter)


def test_an_adapter_without_a_contract_still_merges(adapter, tmp_path):
    old = shutil.copytree(adapter, tmp_path / "old")
    (old / token_contract.FILE).unlink()
    assert token_contract.read(merge(old, tmp_path / "merged")) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("template", r"its chat template is not the one of training; it reads the golden conversation as other tokens"),
        ("end", r"its eos_token is '<\|im_start\|>', not '<\|im_end\|>'.*it stops at \[4, 5\], not at \[5\]"),
    ],
)
def test_an_adapter_whose_tokenizer_was_changed_after_training_is_refused(adapter, tmp_path, damage, said):
    changed = shutil.copytree(adapter, tmp_path / "changed")
    if damage == "template":
        (changed / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    else:
        settings = json.loads((changed / "tokenizer_config.json").read_text())
        (changed / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|im_start|>"}))
        training = json.loads((changed / "training.json").read_text())
        (changed / "training.json").write_text(json.dumps(training | {"end_of_turn_ids": [5]}))
    with pytest.raises(InputError, match=said):
        merge(changed, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
