"""Numbers that a text always gives: what decides split, fraction and shard of a record."""

import hashlib


def whole_hash(text: str) -> int:
    """Return a whole number, from 0 below 2^64."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def uniform_hash(*words: str) -> float:
    """Return a number in [0, 1), always the same for the same words."""
    return (whole_hash("\0".join(words)) >> 11) / 2**53
