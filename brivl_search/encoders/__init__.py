"""Image and text towers: `load_encoder(name)` gives an `Encoder`; torch is imported when a tower is first used."""

from brivl_search.encoders.base import Encoder
from brivl_search.encoders.registry import DEFAULT, bundled, load_encoder

__all__ = ["DEFAULT", "Encoder", "bundled", "load_encoder"]
