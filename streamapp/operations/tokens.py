"""How many tokens a text has: by a real tokenizer where one is named, by a careful estimate otherwise."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamapp.errors import ConfigurationError

_PARTS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+|[ \t]+|\n+|[!-/:-@\[-`{-~]+|[^\x00-\x7f]+")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """A way to count tokens.

    Attributes:
        name: which, as answers tell it.
        count: text -> tokens.
    """

    name: str
    count: Callable[[str], int]


def estimate(text: str) -> int:
    """More tokens than the byte-pair vocabularies in use make of keys, numbers and short words.

    Three small letters, two digits, and one and a half capitals or signs count as a token; a run of spaces counts as one
    but for the single space that belongs to the word after it; every byte beyond ASCII counts. Vocabularies that put up to
    three digits into a token, as those of the large models do, need fewer; one that spells digits singly may need more.
    """
    total = 0
    for found in _PARTS.finditer(text):
        part = found[0]
        first = part[0]
        if first > "\x7f":
            total += len(part.encode("utf-8", "surrogatepass"))
        elif "a" <= first <= "z":
            total += (len(part) + 2) // 3
        elif first.isdigit():
            total += (len(part) + 1) // 2
        elif first in " \t\n":
            after = text[found.end() : found.end() + 1]
            total += part != " " or after.isdigit()
        else:
            total += (2 * len(part) + 2) // 3
    return total


ESTIMATE = TokenCounter("estimate", estimate)


def load_counter(name: str) -> TokenCounter:
    """The counter that the setting `token_counter` names.

    Args:
        name: `estimate`; `tiktoken` or `tiktoken:ENCODING` where that package and its vocabulary are installed; or
            `package.module:function`, a function from text to the number of its tokens.

    Raises:
        ConfigurationError: it cannot be loaded.
    """
    if name == "estimate":
        return ESTIMATE
    module, _, attribute = name.partition(":")
    try:
        if module == "tiktoken":
            encode: Any = importlib.import_module("tiktoken").get_encoding(attribute or "o200k_base").encode_ordinary
            return TokenCounter(name, lambda text: len(encode(text)))
        count: Callable[[str], int] = getattr(importlib.import_module(module), attribute)
    except Exception as problem:
        raise ConfigurationError(
            f"token_counter={name!r} cannot be loaded ({problem}); use `estimate`, `tiktoken` or `module:function`"
        ) from None
    return TokenCounter(name, count)
