"""Training of BriVL models: `pretrain.py` is the script, read it from top to bottom. Imports brivl_search, never the reverse."""
