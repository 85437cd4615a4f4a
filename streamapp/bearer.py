"""How a token is sent: one rule for the client and the command line, which does not import the client."""

from streamapp.errors import ConfigurationError


def bearer(token: str | None) -> dict[str, str]:
    """The headers that carry a token; none without one.

    Raises:
        ConfigurationError: no header can carry it, such as two tokens of one file.
    """
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigurationError("a token has no spaces, line breaks or letters beyond ASCII; the one given has")
    return {"Authorization": f"Bearer {token}"}
