"""Chats as tokens by the files of a model's folder, for engines that load these files and tell of no tokens.

The template is rendered as transformers renders it, and cut by the same tokenizer library; both of these engines do so,
too. What a running server really reads is held against this by its usage, which counts the prompt's tokens.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

TEMPLATE = "chat_template.jinja"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def template(folder: Path) -> str | None:
    """The chat template in a model's folder; None where it has none."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text()
    found = _settings(folder).get("chat_template")
    return found if isinstance(found, str) else None


def prompt_ids(folder: Path, messages: Sequence[Mapping[str, Any]]) -> list[int] | None:
    """Token ids of a chat up to where the assistant answers.

    None without tokenizer.json or template, or for a template that only the engine's own functions can render.
    """
    text = template(folder)
    if text is None or not (folder / "tokenizer.json").is_file():
        return None
    rendered = render(text, messages, _special_tokens(_settings(folder)))
    if rendered is None:
        return None
    return list(_tokenizer(folder / "tokenizer.json").encode(rendered, add_special_tokens=False).ids)


@functools.lru_cache(maxsize=4)
def ids_of_texts(folder: Path) -> Mapping[str, int]:
    """Text -> id of every token that alone has this text; several have that of a broken character."""
    tokenizer = _tokenizer(folder / "tokenizer.json")
    texts = [tokenizer.decode([token], skip_special_tokens=False) for token in range(tokenizer.get_vocab_size())]
    counted = Counter(texts)
    return {text: token for token, text in enumerate(texts) if counted[text] == 1}


def render(text: str, messages: Sequence[Mapping[str, Any]], special_tokens: Mapping[str, str]) -> str | None:
    """The chat as text, with the settings of transformers' `render_jinja_template`; None: it cannot be rendered."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return made.from_string(text).render(messages=list(messages), add_generation_prompt=True, **special_tokens)
    except jinja2.TemplateError:
        return None


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """By their roles, as templates name them; older files hold a token as an object."""
    found = {role: settings[role] for role in _SPECIAL if settings.get(role) is not None}
    return {role: token["content"] if isinstance(token, dict) else token for role, token in found.items()}


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


@functools.lru_cache(maxsize=4)
def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))
