"""What is to be indexed: walking folders, decoding images safely, reading caption files.

    walk.py           folders -> image files and caption files, with a reason for everything passed over
    images.py         the bytes of one image -> uint8 RGB pixels, or an ImageError with a countable reason
    decode_pool.py    many files -> pixels, in worker processes that may crash or hang without harm
    decode_worker.py  what runs inside those processes
    exif.py           when a picture was taken
    captions.py       caption files -> captions, with file and line for every bad one
    fields.py         the extra fields of caption lines that records carry
    text.py           lines and JSON of annotation files, with limits
    containers/       images inside tars, TSVs and LMDBs, read by random access
    readers/          dataset layouts -> images and caption lines
    safe_pickle.py    pickles of plain values, without pickle
    sources.py        what a build reads: folders, files, datasets
    dataset.py        images with their captions, whole and checked, for evaluation

Nothing here imports torch, FAISS or a model library: worker processes must start light.
"""
