"""The reference side of parity: what the model as trained answers, and how far the merged one is off.

Request: tuned, merged (folders), rows (jsonl), prompts, near_limit_prompts (counts), context (tokens that the latter
fill with their answers; null: as many as the model has), positions, max_new_tokens, top, batch_size (prompts that are
computed together), batch_tokens (prompt tokens, of those that fill the context), directory.
Writes reference.json: {chat_template, positions (of the model, or null), prompts: [`stages._compared.Prompt`]}.
Result: reference (path), merged [{kl, logprob_diff, answer, ended}] per prompt, over the full vocabulary.

Both models see the reference's own answer as context, so that a position is comparable after the first difference.
"""

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from orchestrator import jsonlines
from orchestrator.stages._compared import common_prefix
from orchestrator.workers import loading, prompts
from orchestrator.workers.prompts import Chat
from orchestrator.workers.protocol import emit, main


def work(request: dict[str, Any]) -> dict[str, Any]:
    """The trained model first, then the merged one; never both in memory."""
    tuned, merged = Path(request["tuned"]), Path(request["merged"])
    training, tokenizer = loading.read_training(tuned), loading.load_tokenizer(tuned)
    ends = loading.end_ids(tokenizer, training)
    limit = loading.positions(AutoConfig.from_pretrained(merged))
    chats = chosen(request, tokenizer, limit)
    emit("log", message=f"answering {len(chats)} prompts as trained")
    trained = Asked(loading.load_tuned(tuned, training), chats, ends, tokenizer.pad_token_id, request)
    answers = trained.answers()
    expected = trained.logprobs(answers)
    del trained

    emit("log", message="answering the same prompts with the merged model")
    plain = Asked(loading.load_plain(merged, training.dtype), chats, ends, tokenizer.pad_token_id, request)
    again = plain.answers()
    found = plain.logprobs(answers)

    for chat, answer, steps in zip(chats, answers, expected, strict=True):
        chat |= {"answer_ids": answer, "text": text(answer, tokenizer), "ended": answer[-1] in ends}
        chat |= {"ends_at": ends_at(answer, tokenizer), "top": [likeliest(step, request["top"]) for step in steps]}
    path = Path(request["directory"]) / "reference.json"
    about = {"chat_template": tokenizer.get_chat_template(), "positions": limit, "prompts": chats}
    path.write_text(json.dumps(about, ensure_ascii=False))
    compared = [
        {**difference(steps, others, answer), "answer": text(other, tokenizer), "ended": other[-1] in ends}
        for steps, others, answer, other in zip(expected, found, answers, again, strict=True)
    ]
    return {"reference": str(path), "merged": compared}


def chosen(request: dict[str, Any], tokenizer: Any, limit: int | None) -> list[Chat]:
    """The held-out prompts, then those that fill the context, as far as there is a limit to it."""
    rows = jsonlines.read(Path(request["rows"]))
    found = prompts.held_out(rows, request["prompts"], tokenizer)
    context = min((each for each in (request["context"], limit) if each), default=None)
    if context and request["near_limit_prompts"]:
        room = context - request["max_new_tokens"]
        found += prompts.near_limit(rows, request["near_limit_prompts"], tokenizer, room)
    return found


def text(answer: Sequence[int], tokenizer: Any) -> str:
    """What a reader sees of an answer."""
    return str(tokenizer.decode(answer, skip_special_tokens=True)).strip()


def ends_at(answer: Sequence[int], tokenizer: Any) -> list[int]:
    """How many characters of the text stand after each token; one that is still half a character differs from it."""
    whole = text(answer, tokenizer)
    parts = (tokenizer.decode(answer[: n + 1], skip_special_tokens=True).lstrip() for n in range(len(answer)))
    return list(accumulate((common_prefix(part, whole) for part in parts), max))


class Asked:
    """One model and the prompts; of those that fill the context, fewer are computed together."""

    def __init__(self, model: Any, chats: Sequence[Chat], ends: list[int], pad: int, request: dict[str, Any]) -> None:
        self._model, self._chats, self._positions = model, chats, request["positions"]
        self._speech: dict[str, Any] = {"ends": ends, "pad": pad, "max_new_tokens": request["max_new_tokens"]}
        few = sum(chat["bucket"] != "near_limit" for chat in chats)
        longest = max(len(chat["prompt_ids"]) for chat in chats)
        self._parts = [
            (slice(few), request["batch_size"]),
            (slice(few, None), max(1, request["batch_tokens"] // longest)),
        ]

    def answers(self) -> list[list[int]]:
        """The greedy answers."""
        ids = [chat["prompt_ids"] for chat in self._chats]
        found = [
            loading.generate(self._model, ids[part], batch_size=size, **self._speech) for part, size in self._parts
        ]
        return [answer for part in found for answer in part]

    def logprobs(self, answers: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Per prompt the log-probabilities (positions, vocabulary) of the first tokens of these answers."""
        first = [list(answer[: self._positions]) for answer in answers]
        rows = [(chat["prompt_ids"], answer) for chat, answer in zip(self._chats, first, strict=True)]
        groups = [group for part, size in self._parts for group in loading.batches(rows[part], size)]
        return [found for group in groups for found in logprobs(self._model, group)]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def logprobs(model: Any, group: Sequence[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """Per (prompt, answer) the log-probabilities (answer's tokens, vocabulary), fp32 on the CPU."""
    sequences = [prompt + answer[:-1] for prompt, answer in group]
    width = max(len(sequence) for sequence in sequences)
    # padded on the right: with causal attention it changes nothing before it
    ids = torch.tensor([sequence + [0] * (width - len(sequence)) for sequence in sequences], device=model.device)
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences], device=model.device)
    kept = width - min(len(prompt) for prompt, _ in group) + 1  # logits of a whole long prompt would not fit
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept).logits
    found = []
    for row, (prompt, answer) in zip(logits, group, strict=True):
        start = len(prompt) - 1 - (width - kept)
        found.append(torch.log_softmax(row[start : start + len(answer)].float(), dim=-1).cpu())
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
    main(work, silent_s=4 * 3600.0)
