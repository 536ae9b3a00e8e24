"""Training of BriVL models: read `pretrain.py` from top to bottom. Imports brivl_search, never the reverse."""
