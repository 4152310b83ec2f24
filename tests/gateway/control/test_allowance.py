"""A wish for a key held against a team's rules, for every figure and every mix of open and given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.allowance import FIGURES, lifetime, within
from gateway.control.store.records import KeyRules, KeyScope
from gateway.errors import PermissionDenied

figure = st.none() | st.integers(1, 5)
names = st.none() | st.frozensets(st.sampled_from(("a", "b", "c")), min_size=1)


@given(
    wish=st.builds(
        KeyScope,
        name=st.just("k"),
        models=names,
        configuration_id=st.none() | st.sampled_from(("a", "b", "c")),
        **dict.fromkeys(FIGURES, figure),
    ),
    rules=st.builds(
        KeyRules,
        models=names.map(lambda found: None if found is None else tuple(found)),
        configurations=names.map(lambda found: None if found is None else tuple(found)),
        **dict.fromkeys(FIGURES, figure),
    ),
)
def test_a_key_never_has_more_than_its_team_allows(wish: KeyScope, rules: KeyRules) -> None:
    try:
        got = within(wish, rules)
    except PermissionDenied:
        return
    for name in FIGURES:
        allowed, wanted = getattr(rules, name), getattr(wish, name)
        assert getattr(got, name) == (allowed if wanted is None else wanted)
        assert allowed is None or getattr(got, name) <= allowed
    if rules.models is not None:
        assert got.models is not None
        assert got.models <= set(rules.models)
    if rules.configurations is not None:
        assert got.configuration_id in rules.configurations
    assert within(got, rules) == got


def test_without_rules_a_wish_is_granted_as_it_is() -> None:
    wish = KeyScope(name="k", models=frozenset("a"), requests_per_minute=5)
    assert within(wish, KeyRules()) == wish
    assert lifetime(None, KeyRules()) is None


def test_how_long_a_key_lives() -> None:
    rules = KeyRules(expires_in_seconds=100)
    assert (lifetime(None, rules), lifetime(50, rules), lifetime(100, rules)) == (100, 50, 100)
    with pytest.raises(PermissionDenied, match="up to 100"):
        lifetime(101, rules)
