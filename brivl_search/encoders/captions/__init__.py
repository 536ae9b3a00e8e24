"""Captions for pictures: a transformer decoder that reads regions and writes words.

BriVL's authors name image-to-text generation as a task that can be added to its two towers, and WenLan's code has such
a decoder beside the contrastive loss. This one reads the image tower's regions and the picture's unit vector.
"""
