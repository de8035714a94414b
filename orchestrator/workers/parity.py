"""The reference side of parity: what the model as trained answers, and how far the merged one is off.

Request: tuned, merged (folders), rows (jsonl), prompts (count), positions, max_new_tokens, top, batch_size, directory.
Writes reference.json: {chat_template, prompts: [{row, messages, prompt_ids, answer_ids, text, ended, top}]}, where
`top` lists for each of the first `positions` answer tokens the likeliest [token id, natural log-probability] pairs.
Result: reference (path), merged [{kl, logprob_diff, exact}] per prompt, over the full vocabulary.

Both models see the reference's own answer as context, so that a position is comparable after the first difference.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator import jsonlines
from orchestrator.workers import loading
from orchestrator.workers.protocol import emit, main

Chat = dict[str, Any]


def work(request: dict[str, Any]) -> dict[str, Any]:
    """The trained model first, then the merged one; never both in memory."""
    tuned = Path(request["tuned"])
    training, tokenizer = loading.read_training(tuned), loading.load_tokenizer(tuned)
    chats = read_chats(Path(request["rows"]), request["prompts"], tokenizer)
    limits = {"max_new_tokens": request["max_new_tokens"], "batch_size": request["batch_size"]}
    spoken = {"ends": loading.end_ids(tokenizer, training), "pad": tokenizer.pad_token_id, **limits}

    emit("log", message=f"answering {len(chats)} prompts as trained")
    model = loading.load_tuned(tuned, training)
    answers = loading.generate(model, [chat["prompt_ids"] for chat in chats], **spoken)
    expected = logprobs(model, chats, answers, request["positions"], request["batch_size"])
    del model

    emit("log", message="answering the same prompts with the merged model")
    model = loading.load_plain(Path(request["merged"]), training.dtype)
    again = loading.generate(model, [chat["prompt_ids"] for chat in chats], **spoken)
    found = logprobs(model, chats, answers, request["positions"], request["batch_size"])

    for chat, answer, steps in zip(chats, answers, expected, strict=True):
        chat["answer_ids"] = answer
        chat["text"] = tokenizer.decode(answer, skip_special_tokens=True).strip()
        chat["ended"] = bool(answer) and answer[-1] in spoken["ends"]
        chat["top"] = [likeliest(step, request["top"]) for step in steps]
    path = Path(request["directory"]) / "reference.json"
    path.write_text(json.dumps({"chat_template": tokenizer.chat_template, "prompts": chats}, ensure_ascii=False))
    merged = [
        {**difference(steps, others, answer), "exact": answer == other}
        for steps, others, answer, other in zip(expected, found, answers, again, strict=True)
    ]
    return {"reference": str(path), "merged": merged}


def read_chats(path: Path, count: int, tokenizer: Any) -> list[Chat]:
    """`count` rows, evenly spaced, each without its answer."""
    rows = jsonlines.read(path)
    count = min(count, len(rows))
    chosen = [index * len(rows) // count for index in range(count)]
    chats = [{"row": index, "messages": rows[index]["messages"][:-1]} for index in chosen]
    return [{**chat, "prompt_ids": loading.prompt_ids(tokenizer, chat["messages"])} for chat in chats]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def logprobs(
    model: Any, chats: Sequence[Chat], answers: Sequence[Sequence[int]], positions: int, batch_size: int
) -> list[torch.Tensor]:
    """Per prompt the log-probabilities (positions, vocabulary), fp32 on the CPU, of the first answer tokens."""
    rows = [(chat["prompt_ids"], list(answer[:positions])) for chat, answer in zip(chats, answers, strict=True)]
    found = []
    for group in loading.batches(rows, batch_size):
        sequences = [prompt + answer[:-1] for prompt, answer in group]
        width = max(len(sequence) for sequence in sequences)
        # padded on the right: with causal attention it changes nothing before it
        ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences], device=model.device)
        mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits
        for row, (prompt, answer) in zip(logits, group, strict=True):
            steps = row[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
            found.append(torch.log_softmax(steps.float(), dim=-1).cpu())
    return found


def likeliest(step: torch.Tensor, top: int) -> list[tuple[int, float]]:
    """The `top` likeliest (token id, log-probability) pairs of one position."""
    values, ids = step.topk(min(top, step.shape[-1]))
    return list(zip(ids.tolist(), values.tolist(), strict=True))


def difference(expected: torch.Tensor, found: torch.Tensor, answer: Sequence[int]) -> dict[str, list[float]]:
    """Per position: KL(expected || found) in nats, and |difference| of the answer token's log-probability."""
    kl = (expected.exp() * (expected - found)).sum(dim=-1)
    tokens = torch.tensor(answer[: len(expected)]).unsqueeze(1)
    gap = (expected.gather(1, tokens) - found.gather(1, tokens)).abs().squeeze(1)
    return {"kl": kl.clamp(min=0).tolist(), "logprob_diff": gap.tolist()}


if __name__ == "__main__":
    main(work)
