"""What is to be indexed: walking folders, decoding images safely, reading caption files.

    walk.py           folders -> image files and caption files, with a reason for everything passed over
    images.py         the bytes of one image -> uint8 RGB pixels, or an ImageError with a countable reason
    decode_pool.py    many files -> pixels, in worker processes that may crash or hang without harm
    decode_worker.py  what runs inside those processes
    captions.py       caption files -> captions, with file and line for every bad one

Nothing here imports torch, FAISS or a model library: worker processes must start light.
"""
