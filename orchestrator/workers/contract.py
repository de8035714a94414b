"""The token contract on the side of the model: the train worker writes it, the merge worker holds its folder to it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from orchestrator import token_contract
from orchestrator.errors import InputError
from orchestrator.token_contract import Golden, TokenContract
from orchestrator.workers import loading

CANDIDATES = 4
"""Training rows that are tried as the golden conversation: the shortest."""
LONGEST_ANSWER = 256
"""Tokens of a golden answer, at most."""
CUT_ANSWER = 32
"""Tokens that are kept of an answer that did not end; no engine is held to where it ends."""
SURE = 0.5
"""Probability of the end token, below which an answer has ended by chance: another rounding may go on."""
NATS_BEHIND = 1.0
"""By how much a golden token may fall behind the likeliest one in a copy of the model."""
SAMPLING = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""Of generation_config.json: what servers take as their defaults."""


def of_model(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], ends: Sequence[int], defaults: GenerationConfig
) -> TokenContract:
    """The contract of a model that has just been trained on `rows`; `defaults` is what its base brought."""
    given = defaults.to_diff_dict()
    return TokenContract(
        chat_template=tokenizer.get_chat_template(),
        special_tokens=special_tokens(tokenizer),
        stop_ids=list(ends),
        generation={name: given[name] for name in SAMPLING if name in given},
        vocabulary=len(tokenizer),
        golden=golden(model, tokenizer, rows, ends),
    )


def golden(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], ends: Sequence[int]) -> Golden | None:
    """Of the shortest rows, one whose greedy answer ends by itself, and the one of which the model is surest."""
    tried = [answered(model, tokenizer, row, ends) for row in candidates(rows)]
    best = max(tried, key=lambda found: (found[0].ended, found[1]), default=None)
    return best[0] if best else None


def candidates(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shortest rows, of equal prompts only the first."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=_characters):
        if row["messages"][:-1]:
            found.setdefault(json.dumps(row["messages"][:-1]), row)
        if len(found) == CANDIDATES:
            break
    return list(found.values())


def answered(model: Any, tokenizer: Any, row: dict[str, Any], ends: Sequence[int]) -> tuple[Golden, float]:
    """The model's greedy answer, and the probability of its least likely token.

    It may have twice the tokens of the row's own answer; a server gets twice those of the model's.
    """
    *messages, own = row["messages"]
    prompt = loading.prompt_ids(tokenizer, messages)
    room = _room(model, prompt, tokenizer(own["content"], add_special_tokens=False)["input_ids"])
    (answer,) = loading.generate(model, [prompt], ends=ends, pad=_pad(tokenizer), max_new_tokens=room, batch_size=1)
    steps = _steps(model, prompt, answer).exp()
    chances = [float(step[token]) for step, token in zip(steps, answer, strict=True)]
    ended = answer[-1] in ends and chances[-1] >= SURE
    answer = answer if ended else answer[:CUT_ANSWER]
    found = Golden(
        messages=messages,
        prompt_ids=prompt,
        answer_ids=answer,
        text=tokenizer.decode(answer, skip_special_tokens=True).strip(),
        ended=ended,
        max_tokens=_room(model, prompt, answer) if ended else CUT_ANSWER,
    )
    return found, min(chances)


def special_tokens(tokenizer: Any) -> dict[str, Any]:
    """By their roles; those without one, such as the markers of turns, are `additional_special_tokens`."""
    roles = {role: str(token) for role, token in tokenizer.special_tokens_map.items() if not isinstance(token, list)}
    others = sorted(set(map(str, tokenizer.all_special_tokens)) - set(roles.values()))
    return {**roles, "additional_special_tokens": others}


def hold(folder: Path, contract: TokenContract) -> None:
    """Write the contract into a folder of model files that keep it. Raises InputError for files that do not."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    golden = contract.golden
    ids = loading.prompt_ids(tokenizer, golden.messages) if golden else None
    problems = token_contract.broken(contract, ids, tokenizer.get_chat_template())
    problems += _differences(contract, tokenizer, GenerationConfig.from_pretrained(folder).eos_token_id)
    if problems:
        raise InputError(
            f"{folder.name} would not keep the token contract of its training: {'; '.join(problems)}",
            next_step="the adapter's tokenizer files must be those that training left; train again if they are lost",
        )
    token_contract.write(contract, folder)


def require_golden_answer(model: Any, contract: TokenContract, base: str) -> None:
    """Raises InputError for a merged model that would not give the golden answer, token by token, as the trained one.

    Rounding moves a token's log-probability by some hundredths; another base, or another adapter, by several nats.
    """
    golden = contract.golden
    if golden is None:
        return
    steps = _steps(model, golden.prompt_ids, golden.answer_ids)
    behind = [float(step.max() - step[token]) for step, token in zip(steps, golden.answer_ids, strict=True)]
    if not max(behind) <= NATS_BEHIND:  # so that NaN is refused, too
        place = next(place for place, nats in enumerate(behind) if not nats <= NATS_BEHIND)
        raise InputError(
            "the merged model would answer its golden conversation otherwise than the trained model did: token"
            f" {place + 1} of {golden.text!r} is {behind[place]:.2g} nats behind another one",
            next_step=f"{base} must be, unchanged, the base that the adapter was trained on; train again if it is not",
        )


def _differences(contract: TokenContract, tokenizer: Any, listed: int | list[int] | None) -> list[str]:
    stops = listed if isinstance(listed, list) else [] if listed is None else [listed]
    found = special_tokens(tokenizer)
    problems = [
        f"its {role} is {found.get(role)!r}, not {token!r}"
        for role, token in contract.special_tokens.items()
        if found.get(role) != token
    ]
    if set(stops) != set(contract.stop_ids):
        problems.append(f"it stops at {stops}, not at {contract.stop_ids}")
    if len(tokenizer) != contract.vocabulary:
        problems.append(f"its tokenizer knows {len(tokenizer)} tokens, not {contract.vocabulary}")
    return problems


def _room(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> int:
    """Twice the answer and a little, within the model's positions."""
    room = min(2 * len(answer) + CUT_ANSWER, LONGEST_ANSWER)
    positions = loading.positions(model.config)
    return room if positions is None else max(1, min(room, positions - len(prompt)))


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _steps(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Log-probabilities (answer's tokens, vocabulary) with the answer itself as context."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    return model(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float().log_softmax(dim=-1)


def _characters(row: dict[str, Any]) -> int:
    return sum(len(turn["content"]) for turn in row["messages"])


def _pad(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if found is None else found)
