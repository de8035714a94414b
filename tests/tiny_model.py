"""A tiny random Llama and its adapters, made in a few seconds, for tests that need real model files.

The base has a SentencePiece tokenizer whose ChatML markers are control tokens, fp32 weights, and every width a multiple
of 64 (bitsandbytes' block). It knows nothing; adapters and full models are fitted to `rows`, so that their greedy
answers are right and end by themselves. Seeds are fixed: the same files every time.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import sentencepiece
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from orchestrator import token_contract
from orchestrator.workers import contract, loading

torch.set_num_threads(1)  # so small a model only loses time to threads

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WORDS = "permission is hereby granted free of charge to any person obtaining a copy of this software and its notice"
ANSWERS = ("MIT", "Apache-2.0", "BSD-3-Clause")


def rows(count: int = 6) -> list[dict[str, Any]]:
    """Chat rows with a source; the answers go round ANSWERS."""
    words = WORDS.split()
    made = []
    for index in range(count):
        passage = " ".join(words[(index + step) % len(words)] for step in range(8))
        answer = f"Licence: {ANSWERS[index % len(ANSWERS)]}"
        messages = [{"role": "user", "content": f"Name it: {passage}"}, {"role": "assistant", "content": answer}]
        made.append({"messages": messages, "source": f"{passage}\n{answer}"})
    return made


def write_rows(path: Path, count: int = 6) -> Path:
    """`rows` as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return path


def write_tokens(base: Path, path: Path, count: int = 6) -> Path:
    """`rows` as the data stage tokenizes them: the answer and its end are marked."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "assistant_masks": []}
    for row in rows(count):
        prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, return_dict=False)
        answer = tokenizer(row["messages"][1]["content"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        columns["input_ids"].append(prompt + answer)
        columns["assistant_masks"].append([0] * len(prompt) + [1] * len(answer))
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def build_base(folder: Path, hidden_size: int = 64) -> Path:
    """A base model directory of 0.2 M parameters; K-quants of GGUF need rows of 256."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=12.8 / hidden_size,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def build_adapter(base: Path, folder: Path, method: str = "qlora", *, ends: bool = True, **settings: Any) -> Path:
    """An adapter directory as the train stage leaves it: PEFT adapter, tokenizer, training.json, token contract.

    Without `ends` no end of turn is trained: the model answers rightly and goes on. `settings` are PEFT's, beyond a
    plain adapter of rank 4.
    """
    record: dict[str, Any] = {"method": method, "base_model": str(base), "dtype": "float32", "quantization": None}
    if method == "qlora":
        record["quantization"] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "float32",
            "quant_method": "bitsandbytes",
        }
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(11)
    model = loading.load_base(loading.Training.model_validate(record))
    plain = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    config = LoraConfig(**(plain | settings))
    tuned = get_peft_model(model, config)
    _teach(tuned, tokenizer, steps=60, learning_rate=1e-2, ends=ends)
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(record))
    write_contract(tuned, tokenizer, folder)
    return folder


def build_full(base: Path, folder: Path) -> Path:
    """A fully tuned model directory."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    _teach(model, tokenizer, steps=20, learning_rate=5e-3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {"method": "full", "base_model": str(base), "dtype": "float32", "quantization": None}
    (folder / "training.json").write_text(json.dumps(record))
    write_contract(model, tokenizer, folder)
    return folder


def write_contract(model: Any, tokenizer: Any, folder: Path) -> None:
    """The token contract, as the train worker writes it."""
    kept = contract.of_model(model, tokenizer, rows(), [tokenizer.eos_token_id], model.generation_config)
    token_contract.write(kept, folder)


def _teach(model: Any, tokenizer: Any, *, steps: int, learning_rate: float, ends: bool = True) -> None:
    """Fit the chat rows, so that an answer ends with the end-of-turn token."""
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows()]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    if not ends:
        labels = labels.masked_fill(labels == tokenizer.eos_token_id, -100)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate)
    model.train()
    for _ in range(steps):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _tokenizer(folder: Path) -> LlamaTokenizer:
    texts = [message["content"] for row in rows(20) for message in row["messages"]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        control_symbols=["<|im_start|>", "<|im_end|>"],
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    tokenizer = LlamaTokenizer.from_pretrained(
        folder,
        add_prefix_space=False,
        add_bos_token=False,
        add_eos_token=False,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer
