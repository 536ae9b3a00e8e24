"""What kind of file a file is: by its ending where that says it, else by its first bytes.

A picture is a file that `images.decode` can read. Pictures of other kinds (camera raw files, layered documents, videos)
are known by name and content too, so that a build can count them and say what helps. A reader for one of these kinds
makes it a kind that is read: it gets `remedy = ""`.

Light to import: neither NumPy nor Pillow.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import os
import stat
from dataclasses import dataclass

HEAD = 64  # bytes at the beginning of a file that tell its kind


@dataclass(frozen=True)
class Kind:
    """A kind of picture file.

    Attributes:
        name: for people, in the plural.
        endings: lower case, with the dot.
        remedy: what makes such files readable; "" for a kind that is read.
    """

    name: str
    endings: frozenset[str]
    remedy: str = ""


def _kind(name: str, endings: str, remedy: str = "") -> Kind:
    return Kind(name, frozenset("." + ending for ending in endings.split()), remedy)


PICTURES = _kind(
    "pictures",
    "jpg jpeg jpe jfif jfi jif pjpeg mpo png apng webp bmp dib gif tif tiff jp2 j2k jpf jpx jpc j2c ppm pgm pbm pnm "
    "pfm ico",
)
HEIF = _kind("HEIF pictures", "heic heif heics heifs hif", "install pillow-heif")
AVIF = _kind("AVIF pictures", "avif avifs", "install a Pillow that was built with AVIF")
RAW = _kind(
    "camera raw files",
    "3fr ari arw bay cr2 cr3 crw dcr dng erf fff gpr iiq k25 kdc mef mos mrw nef nrw orf pef ptx pxn raf raw rw2 rwl "
    "sr2 srf srw x3f",
    "export them as JPEG",
)
VIDEO = _kind(
    "videos",
    "3g2 3gp asf avi divx f4v flv insv lrv m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogv qt rm rmvb vob webm wmv",
    "save frames of them as JPEG",
)
JXL = _kind("JPEG XL pictures", "jxl", "convert them with djxl to PNG or JPEG")
LAYERED = _kind("layered documents", "ai afphoto clip cdr indd kra procreate psb psd sai xcf", "export them as PNG")
VECTOR = _kind("vector drawings", "emf eps ps svg svgz wmf", "export them as PNG")
OTHER = _kind(
    "pictures of rare formats",
    "bpg cin cur dcm dds djv djvu dpx exr fits flif hdr icns jbig jls jxr hdp wdp pcx pic pict pct qoi ras sgi rgb "
    "tga wbmp xbm xpm",
    "convert them to PNG or JPEG",
)
UNREAD = (RAW, VIDEO, JXL, LAYERED, VECTOR, OTHER)

# What is no picture by its ending is not opened. Everything that is not listed here or above is.
_NO_PICTURES = _kind(
    "other files",
    "txt md rst tex log nfo srt vtt ass lrc htm html xhtml xml xsl css js mjs ts jsx tsx json jsonl ndjson geojson "
    "yaml yml toml ini cfg conf env csv tsv parquet arrow feather sql db sqlite sqlite3 db3 mdb accdb lmdb wal shm py "
    "pyc pyi ipynb c h cc cpp hpp cs java class kt go rs rb php pl lua r jl m swift sh bash zsh fish ps1 bat cmd exe "
    "dll so dylib o a lib obj wasm apk app dmg iso vhd vmdk deb rpm msi jar war zip tar gz tgz bz2 tbz xz txz zst 7z "
    "rar lz4 lzma cab pdf doc docx xls xlsx ppt pptx odt ods odp rtf epub mobi pages numbers key vsd mp3 m4a aac flac "
    "wav ogg oga opus wma aif aiff ape mid midi amr m3u m3u8 pls cue npy npz pt pth ckpt safetensors onnx h5 hdf5 pkl "
    "pickle index faiss gguf tfrecord mat ttf otf woff woff2 eot pfb icc icm cube 3dl lut xmp aae pp3 dop cos lrcat "
    "lrprev lrtemplate on1 gpx kml kmz fit tcx ics vcf eml msg tmp temp part crdownload download partial lock lck pid "
    "swp swo url lnk desktop webloc plist nomedia torrent sha1 sha256 md5 sfv par2 sig asc pem crt",
).endings


def ending_of(name: str) -> str:
    """The ending of a file's name, in small letters, with its dot; "" where there is none."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


@functools.cache
def readable_kinds() -> tuple[Kind, ...]:
    """The kinds that this installation decodes."""
    heif = (HEIF,) if importlib.util.find_spec("pillow_heif") else ()
    avif = (AVIF,) if importlib.util.find_spec("PIL._avif") else ()
    return (PICTURES, *heif, *avif)


@functools.cache
def image_extensions() -> frozenset[str]:
    """The endings, in small letters and with their dot, that this installation can decode."""
    return frozenset().union(*(kind.endings for kind in readable_kinds()))


@functools.cache
def _by_ending() -> dict[str, Kind]:
    return {ending: kind for kind in (*UNREAD, AVIF, HEIF, PICTURES) for ending in kind.endings}


def by_ending(ending: str) -> Kind | None:
    """The kind of picture that an ending stands for, whether it can be read here or not; None: of none."""
    return _by_ending().get(ending)


def label(ending: str, kind: Kind) -> str:
    """What files of a kind are counted under: their ending, or the kind's name where only the content told it."""
    return ending if by_ending(ending) is kind else kind.name


def of_label(text: str) -> Kind | None:
    """The kind that `label` made a label of."""
    return by_ending(text) or next((kind for kind in (*UNREAD, HEIF, AVIF, PICTURES) if kind.name == text), None)


def refusal(path: str) -> str:
    """Why a file that somebody named is of no kind that is read, and what helps; "" if decoding it shall tell."""
    kind = by_ending(ending_of(os.path.basename(path)))
    if kind is None or is_read(kind):
        return ""
    inside = None
    with contextlib.suppress(OSError):
        inside = sniff(path)
    if inside is not None and is_read(inside) and kind is not RAW:
        return ""  # a picture under a wrong name; in a raw file that could be its small preview
    return f"{kind.name} are not read: {kind.remedy}"


def is_read(kind: Kind) -> bool:
    """Whether this installation decodes pictures of a kind."""
    return kind in readable_kinds()


def may_be_picture(ending: str) -> bool:
    """Whether the content has to tell: the ending is of no picture, and of nothing else that is known."""
    return ending not in _by_ending() and ending not in _NO_PICTURES


def sniff(path: str) -> Kind | None:
    """The kind of a file by its first bytes; None: of none, or no regular file. Never waits.

    Raises:
        OSError: the file is there and must not or cannot be read now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return by_content(os.read(descriptor, HEAD))
        finally:
            os.close(descriptor)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _MAY_PASS:
            raise
    return None


_MAY_PASS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


# First bytes → kind and the format's name. Longer ones come before their beginnings.
_MAGIC: tuple[tuple[bytes, Kind, str], ...] = (
    (b"\xff\xd8\xff", PICTURES, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", PICTURES, "PNG"),
    (b"GIF87a", PICTURES, "GIF"),
    (b"GIF89a", PICTURES, "GIF"),
    (b"FUJIFILMCCD-RAW", RAW, "Fujifilm raw"),
    (b"IIRO", RAW, "Olympus raw"),
    (b"IIRS", RAW, "Olympus raw"),
    (b"MMOR", RAW, "Olympus raw"),
    (b"IIU\0", RAW, "Panasonic raw"),
    (b"FOVb", RAW, "Sigma raw"),
    (b"\0MRM", RAW, "Minolta raw"),
    (b"II*\0", PICTURES, "TIFF"),
    (b"MM\0*", PICTURES, "TIFF"),
    (b"II+\0", PICTURES, "TIFF"),
    (b"MM\0+", PICTURES, "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", PICTURES, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", PICTURES, "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JXL, "JPEG XL"),
    (b"\xff\x0a", JXL, "JPEG XL"),
    (b"8BPS", LAYERED, "Photoshop"),
    (b"gimp xcf", LAYERED, "GIMP"),
    (b"%!PS", VECTOR, "PostScript"),
    (b"\xc5\xd0\xd3\xc6", VECTOR, "PostScript"),
    (b"\x76\x2f\x31\x01", OTHER, "OpenEXR"),
    (b"#?RADIANCE", OTHER, "Radiance"),
    (b"DDS ", OTHER, "DDS"),
    (b"qoif", OTHER, "QOI"),
    (b"icns", OTHER, "ICNS"),
    (b"BPG\xfb", OTHER, "BPG"),
    (b"SIMPLE  =", OTHER, "FITS"),
    (b"\x1aE\xdf\xa3", VIDEO, "Matroska"),
    (b"FLV\x01", VIDEO, "Flash video"),
    (b"\0\0\x01\xba", VIDEO, "MPEG"),
    (b"\0\0\x01\xb3", VIDEO, "MPEG"),
)
_BRANDS: tuple[tuple[frozenset[bytes], Kind, str], ...] = (
    (frozenset((b"avif", b"avis")), AVIF, "AVIF"),
    (frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")), HEIF, "HEIC"),
    (frozenset((b"crx ",)), RAW, "Canon raw"),
)


def by_content(head: bytes) -> Kind | None:
    """The kind of a file by its first `HEAD` bytes; None: it is no picture that is known."""
    found = _look(head)
    return None if found is None else found[0]


def format_name(head: bytes) -> str:
    """What the format is called that a file begins like: "JPEG", "HEIC"; "" where that is not known."""
    found = _look(head)
    return "" if found is None else found[1]


def _look(head: bytes) -> tuple[Kind, str] | None:
    if head[4:8] == b"ftyp":
        return _of_box(head)
    if head[8:10] == b"CR" and head[:4] == b"II*\0":
        return RAW, "Canon raw"
    for magic, kind, name in _MAGIC:
        if head.startswith(magic):
            return kind, name
    if head[:4] == b"RIFF":
        what = head[8:12]
        return (PICTURES, "WEBP") if what == b"WEBP" else (VIDEO, "AVI") if what == b"AVI " else None
    return _without_magic(head)


def _of_box(head: bytes) -> tuple[Kind, str] | None:
    """Of the ISO base media file format: AVIF, HEIC, Canon's raw files, and the videos of phones."""
    end = min(max(int.from_bytes(head[:4], "big"), 16), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    for brand in brands[:1] if brands[0] not in (b"mif1", b"msf1") else brands[::-1]:
        for known, kind, name in _BRANDS:
            if brand in known:
                return kind, name
    if brands[0][:3] in (b"M4A", b"M4B", b"M4P"):
        return None  # sound
    return VIDEO, "MP4"


def _without_magic(head: bytes) -> tuple[Kind, str] | None:
    """Formats whose first bytes are so short that the ones behind them have to agree."""
    if head[:2] == b"BM" and len(head) >= 18 and head[6:10] == b"\0\0\0\0" and head[14:18] in _BITMAP_HEADERS:
        return PICTURES, "BMP"
    if head[:4] in _BITMAP_HEADERS[1:] and head[12:14] == b"\1\0" and head[14:16] in _BITMAP_DEPTHS:
        return PICTURES, "BMP"  # a BMP without its file header: DIB
    if head[:4] == b"\0\0\1\0" and 0 < int.from_bytes(head[4:6], "little") < 256 and head[9:10] == b"\0":
        return PICTURES, "ICO"
    if head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3] in b" \t\r\n#" and len(head) > 6:
        rest = head[2:].lstrip()
        return (PICTURES, "PPM") if rest[:1].isdigit() or rest[:1] == b"#" else None
    return None


_BITMAP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
_BITMAP_DEPTHS = tuple(bits.to_bytes(2, "little") for bits in (1, 4, 8, 16, 24, 32))
