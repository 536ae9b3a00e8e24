"""One tower: text tokens and image regions in one transformer, and one number for how well they fit.

UNITER (arXiv 1909.11740) is the baseline that BriVL compares itself with: every pair of a text and a picture goes
through the whole model, so N texts and M pictures cost N · M passes. Here it re-orders the first hits of two towers.
"""
