"""brivl-search: cross-modal retrieval after WenLan/BriVL."""

__version__ = "0.1.0"
