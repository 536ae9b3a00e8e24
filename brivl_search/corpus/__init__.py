"""What is to be indexed: walking folders, decoding images safely, reading caption files.

    walk.py           folders -> image files and caption files, with a reason for everything passed over
    kinds.py          which files are pictures, by ending and by first bytes, and what helps with the others
    images.py         the bytes of one image -> uint8 RGB pixels, or an ImageError with a countable reason
    codecs.py         the decoders, and what their errors mean
    colour.py         greys of any depth, ICC profiles, transparency -> 8-bit RGB
    pixels.py         a decoded picture -> the square that a tower takes
    truncated.py      files without their end: is a pixel missing?
    phash.py          a perceptual hash: do two pictures look the same?
    decode_pool.py    many files -> pixels, in worker processes that may crash or hang without harm
    decode_worker.py  what runs inside those processes
    decode_single.py  what runs inside a server's: one picture at a time
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
