"""brivl_search.corpus.kinds: what counts as a picture, by ending and by content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from brivl_search.corpus import kinds
from brivl_search.corpus.images import PixelSpec, decode
from brivl_search.corpus.walk import scan, scan_paths
from brivl_search.errors import ImageError
from tests.support import pictures

WRITABLE = {
    "JPEG": ".jpg",
    "MPO": ".mpo",
    "PNG": ".apng",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "TIFF": ".tif",
    "JPEG2000": ".jp2",
    "ICO": ".ico",
    "PPM": ".ppm",
    "AVIF": ".avif",
    "HEIF": ".HIF",
}


def content(form: str) -> bytes:
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    return pictures.encoded(pictures.draw("red", "ring", (64, 48)), form)


@pytest.mark.parametrize("form", WRITABLE)
def test_every_format_is_found_by_its_ending_and_by_its_content(tmp_path: Path, form: str) -> None:
    data = content(form)
    found = kinds.by_content(data[: kinds.HEAD])
    assert found is not None and kinds.is_read(found)
    for name in ("a" + WRITABLE[form], "no_ending", "b.xyz", "c.jpg~"):
        (tmp_path / name).write_bytes(data)
    by_scan = [os.path.basename(image.path) for image in scan([tmp_path]).images]
    assert by_scan == sorted(os.listdir(tmp_path))
    assert [image.path for image in scan_paths([tmp_path / name for name in by_scan]).images] == [
        image.path for image in scan([tmp_path]).images
    ]
    assert decode(data, PixelSpec(16)).width == (48 if form == "ICO" else 64)


@pytest.mark.parametrize("ending", [".HEICS", ".heifs", ".hif", ".avifs", ".jfi", ".J2K", ".pnm", ".pgm", ".DIB"])
def test_rarer_endings_are_pictures(ending: str) -> None:
    assert kinds.ending_of("x" + ending) in kinds.image_extensions()


UNREAD = {
    "raw.nef": (b"MM\0*" + bytes(60), ".nef", "camera raw files"),
    "raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "camera raw files", "camera raw files"),
    "canon.xx": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(60), "camera raw files", "camera raw files"),
    "a.jxl": (b"\xff\x0a" + bytes(60), ".jxl", "JPEG XL pictures"),
    "a": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JPEG XL pictures", "JPEG XL pictures"),
    "b": (b"8BPS\0\1" + bytes(60), "layered documents", "layered documents"),
    "c.psd": (b"8BPS\0\1" + bytes(60), ".psd", "layered documents"),
    "film.MOV": (b"\0\0\0\x14ftypqt  " + bytes(60), ".mov", "videos"),
    "film": (b"\0\0\0\x20ftypisom" + bytes(60), "videos", "videos"),
}


def test_pictures_that_are_not_read_are_counted_with_what_helps(tmp_path: Path) -> None:
    from brivl_search.output.build import unread_lines

    for name, (data, _, _) in UNREAD.items():
        (tmp_path / name).write_bytes(data)
    found = scan([tmp_path])
    assert not found.images and not found.skipped and found.other_files == len(UNREAD)
    assert sorted(found.unread.elements()) == sorted(label for _, label, _ in UNREAD.values())
    lines = unread_lines(found.unread)
    assert len(lines) == 4
    raw = next(line for line in lines if "camera raw" in line)
    assert raw == "not read: camera raw files (2 with another ending, 1 .nef): export them as JPEG"


def test_a_named_file_of_a_kind_that_is_not_read_says_what_helps(tmp_path: Path) -> None:
    for name in ("raw.nef", "c.psd"):
        (tmp_path / name).write_bytes(UNREAD[name][0])
    (tmp_path / "really.psd").write_bytes(pictures.jpeg())
    found = scan_paths([tmp_path / "raw.nef", tmp_path / "c.psd", tmp_path / "really.psd"])
    assert [os.path.basename(one.path) for one in found.images] == ["really.psd"]
    assert [(one.reason, one.detail) for one in found.skipped] == [
        ("unsupported format", "camera raw files are not read: export them as JPEG"),
        ("unsupported format", "layered documents are not read: export them as PNG"),
    ]
    with pytest.raises(ImageError, match="unsupported format: Photoshop: export them as PNG"):
        decode(UNREAD["b"][0], PixelSpec(8))


def test_known_other_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notes.txt", "song.mp3", "page.html", "a.jpg", "captions.jsonl", "x.nef"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(kinds, "sniff", lambda path: pytest.fail(f"{path} was opened"))
    assert [os.path.basename(image.path) for image in scan([tmp_path]).images] == ["a.jpg"]


def test_what_looks_like_a_picture_at_its_first_letters_is_none(tmp_path: Path) -> None:
    for name, data in {
        "a": b"BMW is a car maker, and this is a text",
        "b": b"P1 is the first of several pages here",
        "c": b"",
        "d": b"RIFF\0\0\0\0WAVEfmt ",
        "e": b"\0\0\1\0" + bytes(40),
        "f": b"%!PS-Adobe-3.0",
        "g": b"P",
        "h": b"\0\0\0\x1cftypM4A \0\0\0\0",
    }.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    found = scan([tmp_path])
    assert not found.images and not found.skipped


def test_a_file_that_must_not_be_read_is_kept_in_mind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_ending").write_bytes(pictures.jpeg())

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kinds, "sniff", refuse)
    (skipped,) = scan([tmp_path]).skipped
    assert (os.path.basename(skipped.path), skipped.reason) == ("no_ending", "permission denied")


def test_damaged_heic_does_not_ask_for_what_is_installed() -> None:
    data = content("HEIF")
    for damaged in (data[:40], data[: len(data) // 2], data[:200] + bytes(len(data) - 200), data[:-1]):
        with pytest.raises(ImageError) as caught:
            decode(damaged, PixelSpec(16))
        assert caught.value.reason in ("corrupt", "truncated") and "install" not in str(caught.value)


def test_heic_turned_by_the_camera_stands_upright() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (64, 32), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 32, 32))
    stored.info["exif"] = exif.tobytes()
    found = decode(pictures.encoded(stored, "HEIF", quality=95), PixelSpec(32))
    assert (found.width, found.height) == (32, 64)
    assert found.pixels[4, 16, 0] > 200 and found.pixels[28, 16, 2] > 200


def test_a_copied_file_keeps_its_kind_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pictures.jpeg())
    shutil.copy(tmp_path / "a.jpg", tmp_path / "IMG_0001")
    assert len(scan([tmp_path]).images) == 2
