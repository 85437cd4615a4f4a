"""Scopes as they are written, and what they open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import ConfigurationError
from streamapp.queries.access import EVERYTHING, NOTHING, RULES_MAX, Access, Rule, parse_access, parse_rule

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("scope", "rule"),
    [
        ("read", Rule("*", "")),
        ("read/*", Rule("*", "")),
        ("read/latest", Rule("latest", "")),
        ("read/candles_1m/coinbase%3ABTC", Rule("candles_1m", "coinbase:BTC")),
        ("read/candles_1m/coinbase:BTC", Rule("candles_1m", "coinbase:BTC")),
        ("read/*/coinbase%3a", Rule("*", "coinbase:")),
        ("read/t/a/b", Rule("t", "a/b")),
        ("read/t/a%2Fb%25%2A", Rule("t", "a/b%*")),
        ("read/t%2Fu/a", Rule("t/u", "a")),
    ],
)
def test_scope_is_a_table_and_a_beginning(scope: str, rule: Rule) -> None:
    assert parse_rule(scope) == rule
    assert parse_rule(rule.text()) == rule


@pytest.mark.parametrize(
    "scope",
    ["", "read/", "read//", "read//a", "read/t/", "read/t*", "read/**", "read/t/a*", "read/%2A", "read/%2a/x", "read/t/%zz",
     "read/t/%", "read/t/%4", "read/t/%ff", "read/t/%00", "read/t%0A", "Read/t", "write/t", "reads/t", "read/t/a\tb"],
)  # fmt: skip
def test_doubtful_scope_is_refused_instead_of_opening_more(scope: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_rule(scope)


@given(_TEXT.filter(lambda name: name != "*"), st.one_of(st.just(""), _TEXT))
def test_written_rule_holds_no_separator_and_reads_back(table: str, prefix: str) -> None:
    rule = Rule(table, prefix)
    assert not set(rule.text()) & set(":,+ \t\n")
    assert parse_rule(rule.text()) == rule


@given(
    st.lists(st.tuples(st.sampled_from(["t", "u", "*"]), st.text("ab", max_size=3)), max_size=5),
    st.sampled_from(["t", "u", "v"]),
    st.text("ab", max_size=4),
    st.text("ab", max_size=2),
)
def test_key_is_open_where_a_rule_of_its_table_begins_it(
    pairs: list[tuple[str, str]], table: str, key: str, wanted: str
) -> None:
    access = Access(frozenset(Rule(*pair) for pair in pairs))
    expected = any(of in ("*", table) and key.startswith(prefix) for of, prefix in pairs)
    assert access.allows(table, key) == expected
    prefixes = access.prefixes(table)
    assert list(prefixes) == sorted(prefixes)
    assert not any(one is not other and one.startswith(other) for one in prefixes for other in prefixes)
    within = access.within(table, wanted)
    assert key.startswith(within) == (expected and key.startswith(wanted))


def test_nothing_opens_nothing() -> None:
    assert not NOTHING.allows("t", "k")
    assert not NOTHING.allows("t", "")
    assert NOTHING.prefixes("t") == NOTHING.within("t", "") == ()
    assert not NOTHING.touches("")
    assert not NOTHING.allows_anywhere("k")


def test_read_beside_narrower_scopes_opens_everything() -> None:
    assert parse_access(["read/t/a", "read", "metrics"]).everything
    assert EVERYTHING.allows("t", "k")


def test_other_scopes_open_no_reads() -> None:
    assert parse_access(["metrics", "openid", "reader", "READ"]) == NOTHING


def test_scopes_are_bounded() -> None:
    parse_access([f"read/t{number}" for number in range(RULES_MAX)])
    for scopes in ([f"read/t{number}" for number in range(RULES_MAX + 1)], ["read/t/" + "k" * 2_000]):
        with pytest.raises(ConfigurationError, match="at most"):
            parse_access(scopes)
