"""Devices by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from brivl_search.encoders.brivl.encoder import BriVLEncoder
from brivl_search.errors import UsageError


def test_an_unknown_device_is_a_usage_error(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="cuda:77"):
        BriVLEncoder(tiny_checkpoint, device="cuda:77").encode_texts(["dog"])
