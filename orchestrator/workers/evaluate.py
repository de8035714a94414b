"""Greedy answers and perplexity of the base model and of the tuned one; the stage turns them into scores.

Request: tuned (adapter or model folder), rows (jsonl), tokens (parquet: input_ids, assistant_masks; or null),
generations [{limit, max_new_tokens, batch_size}], perplexities [{limit, batch_size}], directory.
Result: answers (one jsonl file per generation: row, base, tuned, and whether each ended by itself), perplexities
[{base, tuned, tokens}].

With an adapter both models are one: the adapter is switched off for the base, which is therefore in the format that the
adapter was trained on. A full model and its base are loaded one after the other.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch

from orchestrator import jsonlines
from orchestrator.workers import loading
from orchestrator.workers.protocol import emit, main

Row = dict[str, Any]
Marked = tuple[list[int], list[int]]
"""Token ids of a chat, and 1 for those that the assistant wrote."""


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Both sides, one after the other."""
    tuned = Path(request["tuned"])
    training, tokenizer = loading.read_training(tuned), loading.load_tokenizer(tuned)
    rows = jsonlines.read(Path(request["rows"]))
    marked = _read_tokens(request["tokens"]) if request["tokens"] else []
    progress = Progress(_steps(request, len(rows), len(marked)))
    sides = {
        name: measure(model, request, rows, marked, Speaker(tokenizer, loading.end_ids(tokenizer, training)), progress)
        for name, model in models(tuned, training)
    }
    files = [
        _write_answers(Path(request["directory"]) / f"answers-{index}.jsonl", sides, index)
        for index in range(len(request["generations"]))
    ]
    pairs = zip(sides["base"]["perplexities"], sides["tuned"]["perplexities"], strict=True)
    perplexities = [{"base": base[0], "tuned": tuned[0], "tokens": base[1]} for base, tuned in pairs]
    return {"answers": files, "perplexities": perplexities, "device": str(loading.device())}


class Progress:
    """Counts answers and scored rows of both models."""

    def __init__(self, steps: int) -> None:
        self._steps, self._before = steps, 0

    def at(self, done: int) -> None:
        emit("progress", step=self._before + done, steps=self._steps)

    def finished(self, count: int) -> None:
        self._before += count


class Speaker:
    """How text becomes tokens and back."""

    def __init__(self, tokenizer: Any, ends: list[int]) -> None:
        self.tokenizer, self.ends = tokenizer, ends

    def prompt(self, row: Row) -> list[int]:
        return loading.prompt_ids(self.tokenizer, row["messages"][:-1])

    def text(self, answer: list[int]) -> str:
        return str(self.tokenizer.decode(answer, skip_special_tokens=True)).strip()


def models(tuned: Path, training: loading.Training) -> Iterator[tuple[str, Any]]:
    """("base", model), then ("tuned", model)."""
    if training.method == "full":
        yield "base", loading.load_base(training)
        yield "tuned", loading.load_tuned(tuned, training)
        return
    model = loading.load_tuned(tuned, training)
    with model.disable_adapter():
        yield "base", model
    yield "tuned", model


def measure(
    model: Any, request: dict[str, Any], rows: list[Row], marked: list[Marked], speaker: Speaker, progress: Progress
) -> dict[str, Any]:
    """{"generations": [[(row number, text, ended)]], "perplexities": [(perplexity, tokens)]} of one model."""
    generations = []
    for wanted in request["generations"]:
        chosen = spread(len(rows), wanted["limit"])
        answers = loading.generate(
            model,
            [speaker.prompt(rows[index]) for index in chosen],
            ends=speaker.ends,
            pad=speaker.tokenizer.pad_token_id,
            max_new_tokens=wanted["max_new_tokens"],
            batch_size=wanted["batch_size"],
            on_batch=progress.at,
        )
        progress.finished(len(chosen))
        ended = [bool(answer) and answer[-1] in speaker.ends for answer in answers]
        texts = [speaker.text(answer) for answer in answers]
        generations.append(list(zip(chosen, texts, ended, strict=True)))
    perplexities = []
    for wanted in request["perplexities"]:
        sample = [marked[index] for index in spread(len(marked), wanted["limit"])]
        perplexities.append(perplexity(model, sample, wanted["batch_size"], progress))
        progress.finished(len(sample))
    return {"generations": generations, "perplexities": perplexities}


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most `limit` rows, evenly spaced: files are often sorted."""
    wanted = min(count, limit or count)
    return [index * count // wanted for index in range(wanted)] if wanted else []


@torch.inference_mode()  # type: ignore[untyped-decorator]
def perplexity(model: Any, marked: Sequence[Marked], batch_size: int, progress: Progress) -> tuple[float, int]:
    """exp of the mean negative log-likelihood (nats) over the assistant's tokens, and how many those are."""
    total, count, done = 0.0, 0, 0
    for group in loading.batches(sorted(marked, key=lambda row: len(row[0])), batch_size):
        width = max(len(ids) for ids, _ in group)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group], device=model.device)
        real = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in group], device=model.device)
        mask = torch.tensor([mask + [0] * (width - len(mask)) for _, mask in group], device=model.device)
        logits = model(input_ids=ids, attention_mask=real).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        total += float((losses * mask[:, 1:]).sum())
        count += int(mask[:, 1:].sum())
        done += len(group)
        progress.at(done)
    return (math.exp(min(total / count, 700.0)), count) if count else (math.nan, 0)


def _read_tokens(path: str) -> list[Marked]:
    table = pyarrow.parquet.read_table(path, columns=["input_ids", "assistant_masks"])
    return list(zip(table["input_ids"].to_pylist(), table["assistant_masks"].to_pylist(), strict=True))


def _steps(request: dict[str, Any], rows: int, marked: int) -> int:
    answers = sum(len(spread(rows, wanted["limit"])) for wanted in request["generations"])
    return 2 * (answers + sum(len(spread(marked, wanted["limit"])) for wanted in request["perplexities"]))


def _write_answers(path: Path, sides: dict[str, dict[str, Any]], index: int) -> str:
    pairs = zip(sides["base"]["generations"][index], sides["tuned"]["generations"][index], strict=True)
    with contextlib.closing(path.open("w", encoding="utf-8")) as file:
        for (row, base, base_ended), (_, tuned, tuned_ended) in pairs:
            entry = {"row": row, "base": base, "tuned": tuned, "base_ended": base_ended, "tuned_ended": tuned_ended}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return str(path)


if __name__ == "__main__":
    main(work)
