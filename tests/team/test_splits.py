"""The hash by which subjects are split, of any text."""

from hypothesis import given, settings
from hypothesis import strategies as st
from team.data import splits


@settings(deadline=None)
@given(st.text(), st.text())
def test_uniform_hash_of_any_words_is_in_range(first: str, second: str) -> None:
    words = (word.encode(errors="replace").decode() for word in (first, second))
    assert 0 <= splits.uniform_hash(*words) < 1
