"""Images that lie inside larger files: where they are, and their bytes by random access. Nothing is unpacked.

    tar.py         members of an uncompressed tar (webdataset)
    base64_tsv.py  lines `id<TAB>base64` (Chinese-CLIP, MUGE)
    lmdb_imgs.py   LMDB folders of id -> base64 (Chinese-CLIP)
    place.py       where an image's bytes lie; CONTAINER::MEMBER
    access.py      a member's place and its bytes

Such an image's path is CONTAINER::MEMBER, e.g. /data/00000.tar::000000001.jpg or /data/lmdb/valid/imgs::1001. A file
that really has `::` in its name wins over that reading.
"""
