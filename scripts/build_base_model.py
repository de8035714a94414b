"""Build a small base model from scratch on a text corpus, on the CPU, in a minute or two.

    python scripts/build_base_model.py --dataset DIR_OR_CORPUS_JSONL --out DIR

The result is a real base model in the Hugging Face layout: a Llama of a few million parameters, pre-trained as a
language model on the corpus (rows {"text": ...}), with its own SentencePiece tokenizer, so that llama.cpp's converter
takes it. Most of the pre-training shows the text as chat turns (a passage, answered by another one of the same
document), so that the chat markers mean something; no answer of any task is in it.

Sizes are multiples of 256: bitsandbytes' blocks (64) and llama.cpp's K-quants (256) both divide them.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

# Threads that spin while they wait make everything ten times slower as soon as another process needs a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sentencepiece
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 2048
SEQUENCE_TOKENS = 192
CONTEXT_TOKENS = 1024
BATCH_ROWS = 4
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
REPORT_EVERY = 20
PLAIN_SHARE = 0.3


def read_corpus(path: Path) -> list[str]:
    """The documents of `corpus.jsonl`, or of the folder that holds it."""
    file = path / "corpus.jsonl" if path.is_dir() else path
    lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines(): a raw U+2028 in a text ends no line
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    return [" ".join(text.split()) for text in texts]


def build_tokenizer(texts: list[str], out: Path) -> LlamaTokenizer:
    """A SentencePiece BPE tokenizer that HF and llama.cpp read alike.

    No normalisation and no dummy space in front: llama.cpp applies neither. The chat markers are control tokens, so
    that they are never cut into pieces and never come from a user's text.
    """
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_sentences(texts)),
        model_prefix=str(out / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
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
    (out / "tokenizer.vocab").unlink()
    tokenizer = LlamaTokenizer.from_pretrained(
        out,
        add_prefix_space=False,
        add_bos_token=False,
        add_eos_token=False,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=CONTEXT_TOKENS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)
    # `save_pretrained` forgets it, and llama.cpp would then put a BOS token in front of every prompt.
    settings = out / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"add_bos_token": False}, indent=2) + "\n")
    return tokenizer


def _sentences(texts: list[str]) -> Iterator[str]:
    """SentencePiece wants short lines (4192 bytes at most)."""
    for text in dict.fromkeys(texts):
        words = text.split(" ")
        for start in range(0, len(words), 100):
            yield " ".join(words[start : start + 100])


def new_model(tokenizer: LlamaTokenizer, pieces: int) -> LlamaForCausalLM:
    """An untrained Llama of about 4 million parameters."""
    config = LlamaConfig(
        vocab_size=math.ceil(pieces / 64) * 64,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def samples(texts: list[str], tokenizer: LlamaTokenizer, chance: random.Random) -> Iterator[list[int]]:
    """Endless token sequences: windows of the text; most of them as a chat turn that another one of the same document
    answers, which teaches the model to recognise what it reads."""
    documents = [text.split(" ") for text in dict.fromkeys(texts)]
    weights = [len(words) ** 0.25 for words in documents]  # a long licence is not worth 30 short ones
    while True:
        words = chance.choices(documents, weights)[0]
        if chance.random() < PLAIN_SHARE:
            text = _window(words, (60, 120), chance)
        else:
            turns = [
                {"role": "user", "content": _window(words, (20, 60), chance)},
                {"role": "assistant", "content": _window(words, (10, 30), chance)},
            ]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        yield tokenizer.encode(text, add_special_tokens=False)


def _window(words: list[str], limits: tuple[int, int], chance: random.Random) -> str:
    length = chance.randint(*limits)
    start = chance.randint(0, max(0, len(words) - length))
    return " ".join(words[start : start + length])


def batches(texts: list[str], tokenizer: LlamaTokenizer, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches (BATCH_ROWS, SEQUENCE_TOKENS): samples packed end to end, so no position is padding."""
    source, buffer = samples(texts, tokenizer, random.Random(seed)), list[int]()
    while True:
        while len(buffer) < BATCH_ROWS * SEQUENCE_TOKENS:
            buffer += next(source)
        yield torch.tensor(buffer[: BATCH_ROWS * SEQUENCE_TOKENS]).view(BATCH_ROWS, SEQUENCE_TOKENS)
        buffer = buffer[BATCH_ROWS * SEQUENCE_TOKENS :]


def pretrain(model: LlamaForCausalLM, source: Iterator[torch.Tensor], steps: int) -> float:
    """Plain language modelling; returns the mean loss (nats per token) of the last REPORT_EVERY steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, steps))
    started, losses = time.monotonic(), deque[float](maxlen=REPORT_EVERY)
    model.train()
    for step in range(1, steps + 1):
        batch = next(source)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % REPORT_EVERY == 0 or step == steps:
            seconds = time.monotonic() - started
            rate = step * BATCH_ROWS * SEQUENCE_TOKENS / seconds
            left = seconds / step * (steps - step)
            print(
                f"pre-training: step {step}/{steps}, loss {sum(losses) / len(losses):.3f}, "
                f"{rate:.0f} tokens/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
    return sum(losses) / len(losses)


def _learning_rate_factor(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def build(dataset: Path, out: Path, steps: int, seed: int) -> None:
    """Write the model directory `out`."""
    texts = read_corpus(dataset)
    if not texts:
        print(f"build_base_model: no documents in {dataset}", file=sys.stderr)
        sys.exit(2)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    tokenizer = build_tokenizer(texts, out)
    model = new_model(tokenizer, len(tokenizer))
    print(
        f"base model: {model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens, {len(texts)} documents",
        file=sys.stderr,
    )
    loss = pretrain(model, batches(texts, tokenizer, seed), steps)
    model.save_pretrained(out)
    report = {"parameters": model.num_parameters(), "documents": len(texts), "steps": steps, "loss": loss, "seed": seed}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train a small Llama base model on a text corpus.")
    parser.add_argument("--dataset", type=Path, required=True, help="corpus.jsonl, or the folder that holds it")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    build(arguments.dataset, arguments.out, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
