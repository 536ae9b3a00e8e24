"""Training of BriVL models: read `train/pretrain.py` from top to bottom. Imports brivl_search, never the reverse."""
