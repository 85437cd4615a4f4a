"""Telling base from quote in symbols that are written without a separator, such as `OMGBUSD`.

Rule: the quote is one of the venue's quote assets at the end of the symbol. Where several fit (`BNBUSD` ends in `USD`
and in `BUSD`), the one that leaves a well-known base wins, else the longest. Symbols that the settings name as
`BASE-QUOTE` overrule the guess. What fits nothing stays whole, in upper case.
"""

from collections.abc import Iterable, Sequence

#: bases that would be cut wrongly because they end like the beginning of a longer quote asset
_KNOWN_BASES = frozenset(
    "1INCH AAVE ADA ALGO ANT APT AR ARB ATOM AVAX BAND BAT BCH BNB BNT BOB BTC CRV DAI DOGE DOT ENJ EOS ETC ETH FET FIL "
    "FLUX GALA GRT ICP INJ KNC LINK LPT LTC MANA MATIC MKR NEAR NMR NOT OCEAN OMG OP POL QNT RLC RNDR SGB SHIB SOL STORJ "
    "SUI SUSHI TRB TRX UNI USDC USDT WBTC XLM XRP XTZ YFI ZEC ZRX".split()
)


class SymbolSplitter:
    """Splits a venue's symbols; one object per feed.

    Args:
        quote_assets: in upper case, any order.
        named: symbols of the settings; those written `BASE-QUOTE` (or with `/`) are exact.
    """

    def __init__(self, quote_assets: Iterable[str], named: Sequence[str] = ()) -> None:
        self._quotes = sorted({quote.upper() for quote in quote_assets}, key=len, reverse=True)
        self._exact = {}
        for symbol in named:
            whole = symbol.upper().replace("/", "-")
            if "-" in whole:
                self._exact[whole.replace("-", "")] = whole

    def split(self, symbol: str) -> str:
        """`OMGBUSD` -> `OMG-BUSD`; what cannot be told apart comes back whole, in upper case."""
        whole = symbol.upper()
        exact = self._exact.get(whole)
        if exact is not None:
            return exact
        fits = [quote for quote in self._quotes if len(quote) < len(whole) and whole.endswith(quote)]
        if not fits:
            return whole
        quote = next((one for one in fits if whole[: -len(one)] in _KNOWN_BASES), fits[0])
        return f"{whole[: -len(quote)]}-{quote}"


def joined(symbol: str) -> str:
    """The form without a separator, in lower case: `OMG-BUSD` -> `omgbusd`."""
    return symbol.replace("-", "").replace("/", "").lower()
