"""Regions in bytes: what comes back, and what is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from brivl_search.index.regions import pack, packed_bytes, unpack

TOKENS = np.random.default_rng(0).normal(0, 2, (5, 24)).astype(np.float16)


def test_a_number_is_off_by_half_a_step_at_most() -> None:
    packed = pack(TOKENS, 3.25)
    assert len(packed) == packed_bytes(5, 24) == 4 + 8 + 5 * (4 + 24)
    found = unpack(packed)
    assert found is not None and found.hub == 3.25 and found.tokens.dtype == np.float16
    step = np.abs(TOKENS.astype(np.float32)).max(1, keepdims=True) / 254
    assert (np.abs(found.tokens.astype(np.float32) - TOKENS) <= step + 2e-3).all()


def test_nothing_and_zeros() -> None:
    for tokens in (np.zeros((0, 24), np.float16), np.zeros((2, 24), np.float16)):
        found = unpack(pack(tokens, 0.0))
        assert found is not None and np.array_equal(found.tokens, tokens)
    with pytest.raises(ValueError, match="not finite"):
        pack(np.full((1, 4), np.nan), 0.0)


def test_damage_is_seen() -> None:
    packed = pack(TOKENS, 1.0)
    for at in range(0, len(packed), 7):
        assert unpack(packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1 :]) is None
    assert unpack(packed[:-1]) is None and unpack(packed[:7]) is None and unpack(b"") is None
