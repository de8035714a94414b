"""Calibration chats as one text, for quantizers that read text: one after another, special tokens as their texts.

Request: model (folder with its tokenizer), rows (JSON lines of {"messages"}), seed, tokens (enough), out (text file).
Result: rows, tokens.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from orchestrator.workers import calibration
from orchestrator.workers.protocol import main


def work(request: dict[str, Any]) -> dict[str, Any]:
    """As many whole chats as it takes to have enough tokens, or all."""
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    texts, tokens = list[str](), 0
    for messages in calibration.draw(calibration.chats(Path(request["rows"])), request["seed"]):
        if tokens >= request["tokens"]:
            break
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False))
        tokens += len(tokenizer(texts[-1], add_special_tokens=False)["input_ids"])
    Path(request["out"]).write_text("".join(texts), encoding="utf-8")
    return {"rows": len(texts), "tokens": tokens}


if __name__ == "__main__":
    main(work)
