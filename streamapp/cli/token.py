"""`streamapp token`: make an access token for the HTTP API."""

import sys
from typing import Annotated

import typer

from streamapp.errors import ConfigurationError
from streamapp.views.auth import SCOPES, is_token_name, new_token


def token(
    name: Annotated[str, typer.Argument(help="Whose token it is; letters, digits and _.-")],
    scopes: Annotated[str, typer.Option(help=f"What it opens, joined by +: {', '.join(SCOPES)}.")] = "read",
) -> None:
    """Print a new token once, and the entry that makes workers accept it.

    The token goes to standard output and is kept nowhere; its entry (a hash) goes to standard error.

    `read` opens all tables, `read/TABLE` one of them, `read/TABLE/PREFIX` those of its keys that begin so (TABLE may be *).
    A + within a prefix is written %2B.

    Example: streamapp token laptop --scopes read+metrics > token.txt

    Example: streamapp token agent --scopes read/latest+read/candles_1m/coinbase:BTC- > token.txt
    """
    if not is_token_name(name):
        raise typer.BadParameter(
            f"expected letters, digits and _.-, at most 64 of them, got {name!r}", param_hint="name"
        )
    try:
        text, entry = new_token(name, [scope.strip() for scope in scopes.split("+") if scope.strip()])
    except ConfigurationError as problem:
        raise typer.BadParameter(str(problem).removeprefix("api_tokens: "), param_hint="--scopes") from None
    print(text)
    print(
        f"\nThe token above is shown only now. Clients send it as `Authorization: Bearer TOKEN`.\n"
        f"Workers accept it once their settings have this entry (comma separated, if there are several):\n\n"
        f"STREAMAPP_API_TOKENS={entry}",
        file=sys.stderr,
    )
