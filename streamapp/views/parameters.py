"""Strict reading of path and query parameters: what is unknown, repeated or malformed is refused by name."""

import re
from collections.abc import Collection
from urllib.parse import unquote

from aiohttp import web

from streamapp.errors import BadParameterError
from streamapp.queries.keys import checked_key

_INTEGER = re.compile(r"-?[0-9]{1,16}", re.ASCII)

#: names of parameters that could only hold a secret
_SECRETS = frozenset(
    {"token", "accesstoken", "bearer", "bearertoken", "apikey", "apitoken", "authtoken", "authorization", "idtoken"}
)


def refuse_tokens(request: web.Request) -> None:
    """BadParameterError for an address with a token in it: addresses end up in logs, histories and referrers."""
    for name in request.query:
        if re.sub(r"[^a-z]", "", name.lower()) in _SECRETS:
            raise BadParameterError(
                name[:100], f"{name[:100]!r}: no address may hold a token; send `Authorization: Bearer TOKEN` instead"
            )


class Parameters:
    """The query parameters of one request, of which only `allowed` names may occur, each once.

    Every method raises BadParameterError naming the parameter.
    """

    __slots__ = ("_values",)

    def __init__(self, request: web.Request, allowed: Collection[str], repeatable: Collection[str] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        if not request.rel_url.raw_query_string:
            return
        for name, value in request.query.items():
            if name not in allowed:
                known = ", ".join(sorted(allowed)) or "none"
                raise BadParameterError(name[:100], f"unknown parameter {name[:100]!r}; this route takes: {known}")
            values = self._values.setdefault(name, [])
            if values and name not in repeatable:
                raise BadParameterError(name, f"{name} is given more than once; give it once")
            values.append(value)

    def text(self, name: str) -> str | None:
        """Text as it was given, or None."""
        values = self._values.get(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of a repeatable parameter, in order."""
        return self._values.get(name, [])

    def integer(self, name: str, *, minimum: int, maximum: int | None = None) -> int | None:
        """An integer within bounds, or None where it is not given."""
        values = self._values.get(name)
        if not values:
            return None
        if not _INTEGER.fullmatch(values[0]):
            raise BadParameterError(name, f"{name} must be an integer, got {values[0][:50]!r}")
        number = int(values[0])
        if number < minimum or (maximum is not None and number > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
            raise BadParameterError(name, f"{name} must be {bounds}, got {number}")
        return number

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of a few words."""
        value = self.text(name) or default
        if value not in choices:
            raise BadParameterError(name, f"{name} must be one of {', '.join(choices)}, got {value[:50]!r}")
        return value


def key_list(request: web.Request, maximum: int) -> list[str]:
    """The keys of `keys=A,B`, in order; a comma within a key is written `%2C`."""
    return text_list(request, "keys", maximum)


def text_list(request: web.Request, wanted: str, maximum: int) -> list[str]:
    """The keys, or beginnings of keys, of `NAME=A,B`, in order; a comma within one is written `%2C`.

    The list is split before it is decoded, which the parsed query no longer allows, so the raw query is read.
    """
    for pair in request.raw_path.partition("?")[2].partition("#")[0].split("&"):
        name, _, value = pair.partition("=")
        if name == wanted and value:
            try:
                keys = [unquote(part.replace("+", " "), errors="strict") for part in value.split(",")]
            except UnicodeDecodeError:
                raise BadParameterError(wanted, f"{wanted} must be percent-encoded UTF-8") from None
            if len(keys) > maximum:
                raise BadParameterError(wanted, f"{wanted} takes at most {maximum} of them, got {len(keys)}")
            return [checked_key(key, wanted) for key in keys]
    raise BadParameterError(wanted, f"{wanted} must list one or more, comma separated")
