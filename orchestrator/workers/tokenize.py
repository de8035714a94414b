"""Applies the base model's chat template to checked rows and marks which tokens are trained: the assistant's turns.

Request: base_model, rows {name: jsonl file}, sequence_len, directory. Writes one parquet file per name with the columns
input_ids and assistant_masks (1 = trained). A turn is found by rendering the conversation up to it, so no
`{% generation %}` marker is needed in the template (llama.cpp's template engine does not know it).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pyarrow
import pyarrow.parquet
from transformers import AutoTokenizer, GenerationConfig

from orchestrator import jsonlines
from orchestrator.errors import InputError
from orchestrator.stats import percentile
from orchestrator.workers.protocol import emit, main


@dataclass
class Tally:
    """What is counted while the rows of one file are tokenized."""

    lengths: list[int] = field(default_factory=list)
    truncated: int = 0
    dropped: int = 0
    untrained_turns: int = 0
    trained_tokens: int = 0


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Tokenize every file; the metrics describe `train`, those of the others carry their name."""
    base = request["base_model"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    if not tokenizer.chat_template:
        raise InputError(
            f"{base} has no chat template", next_step="use an instruction-tuned base, or add chat_template.jinja"
        )
    end_of_turn = end_of_turn_ids(tokenizer, base)
    artifacts, tallies = {}, {}
    for name, path in request["rows"].items():
        rows = jsonlines.read(Path(path))
        file = Path(request["directory"]) / f"{name}.parquet"
        tallies[name] = write_tokens(rows, tokenizer, end_of_turn, request["sequence_len"], file)
        artifacts[name] = str(file)
        emit("log", message=f"{name}: {len(rows)} rows tokenized, {tallies[name].truncated} truncated")
    report = {
        "end_of_turn": tokenizer.convert_ids_to_tokens(sorted(end_of_turn)),
        "sequence_len": request["sequence_len"],
    }
    return {"artifacts": artifacts, "metrics": metrics(tallies), "report": report}


def end_of_turn_ids(tokenizer: Any, base: str) -> set[int]:
    """Tokens that stop generation: the tokenizer's EOS and those of generation_config.json."""
    ids = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    try:
        listed = GenerationConfig.from_pretrained(base).eos_token_id
    except OSError:  # many bases have no generation_config.json
        listed = None
    ids.update(listed if isinstance(listed, list) else [] if listed is None else [listed])
    if not ids:
        raise InputError(f"{base} names no end-of-sequence token; generation would never stop")
    return ids


def write_tokens(rows: list[dict[str, Any]], tokenizer: Any, end_of_turn: set[int], limit: int, file: Path) -> Tally:
    """Write one parquet file; a row of which truncation leaves nothing to train is dropped and counted."""
    tally = Tally()
    columns: dict[str, list[list[int]]] = {"input_ids": [], "assistant_masks": []}
    for number, row in enumerate(rows, start=1):
        try:
            ids, mask = tokens_and_mask(row["messages"], tokenizer, end_of_turn, tally)
        except (InputError, jinja2.TemplateError) as error:
            raise InputError(f"{file.stem} row {number}: {error}") from error
        tally.lengths.append(len(ids))
        tally.truncated += len(ids) > limit
        if not any(mask[:limit]):
            tally.dropped += 1
            continue
        tally.trained_tokens += sum(mask[:limit])
        columns["input_ids"].append(ids[:limit])
        columns["assistant_masks"].append(mask[:limit])
    if not columns["input_ids"]:
        raise InputError(
            f"no row of {file.stem} has a token of the assistant's within sequence_len {limit}",
            next_step=f"raise sequence_len; the longest row has {max(tally.lengths)} tokens",
        )
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return tally


def tokens_and_mask(
    messages: list[dict[str, str]], tokenizer: Any, end_of_turn: set[int], tally: Tally
) -> tuple[list[int], list[int]]:
    """Token ids of the conversation, and 1 for each token that an assistant turn must produce, its end included.

    Some templates render an earlier turn differently once another follows (they drop its reasoning); such a turn is
    not trained and is counted in `tally`. Raises InputError when the last turn cannot be trained.
    """

    def render(turns: list[dict[str, str]], prompt: bool = False) -> list[int]:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    ids = render(messages)
    mask = [0] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        upto = render(messages[: index + 1])
        start, end = common_prefix(render(messages[:index], prompt=True), ids), common_prefix(upto, ids)
        ends = [position for position in range(start, end) if ids[position] in end_of_turn]
        if ends and end >= len(upto) - 1:
            mask[start : ends[-1] + 1] = [1] * (ends[-1] + 1 - start)
        elif index < len(messages) - 1:
            tally.untrained_turns += 1
        else:
            expected = ", ".join(repr(token) for token in tokenizer.convert_ids_to_tokens(sorted(end_of_turn)))
            raise InputError(
                f"the chat template ends the assistant's turn with {tokenizer.convert_ids_to_tokens(ids[-1])!r}, but "
                f"generation stops at {expected}: the model would never learn to stop",
                next_step="make the tokenizer's eos_token the one that the chat template writes after a turn",
            )
    return ids, mask


def common_prefix(left: list[int], right: list[int]) -> int:
    """How many leading tokens are equal."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))


def metrics(tallies: dict[str, Tally]) -> dict[str, float]:
    """Flat numbers: those of `train` without a prefix where only it is meant, rows of every file."""
    train = tallies["train"]
    found: dict[str, float] = {f"{name}_rows": len(tally.lengths) - tally.dropped for name, tally in tallies.items()}
    for name in ("truncated", "dropped", "untrained_turns"):
        found[name] = sum(getattr(tally, name) for tally in tallies.values())
    found |= {"tokens": sum(train.lengths), "trained_tokens": train.trained_tokens}
    return found | lengths(train.lengths)


def lengths(values: Iterable[int]) -> dict[str, float]:
    """Percentiles of the row lengths, in tokens before truncation."""
    ordered = sorted(values)
    return {
        "tokens_p50": percentile(ordered, 50),
        "tokens_p95": percentile(ordered, 95),
        "tokens_max": ordered[-1],
    }


if __name__ == "__main__":
    main(work, silent_s=4 * 3600.0)
