"""A tiny dataset in every layout that `corpus.readers` knows, field for field as the originals have them."""

from __future__ import annotations

import base64
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lmdb

from tests.support.pictures import jpeg, write_lines

KINDS = [("red", "circle"), ("blue", "square"), ("green", "ring")]
ZH = ["一个红色的圆形", "一个蓝色的正方形", "一个绿色的圆环"]
EN = ["a red circle", "a blue square", "a green ring"]
PICTURES = [jpeg((64, 48), colour, shape) for colour, shape in KINDS]


def pictures(folder: Path, *names: str) -> None:
    """Writes the three pictures under these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, PICTURES, strict=True):
        (folder / name).write_bytes(content)


def encode(content: bytes, *, urlsafe: bool = False) -> str:
    return (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(content).decode()


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_lmdb(folder: Path, values: Mapping[bytes, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as txn:
        for key, value in values.items():
            txn.put(key, value)
    return folder


def captions(root: Path) -> Path:
    pictures(root / "images", "0.jpg", "1.jpg", "2.jpg")
    lines = [{"image": f"images/{n}.jpg", "zh": ZH[n], "en": [EN[n]], "split": "test"} for n in range(3)]
    write_lines(root / "captions.jsonl", lines)
    return root


def flickr(root: Path) -> Path:
    """Flickr8k: Flickr8k.token.txt, Flickr_8k.testImages.txt, Flicker8k_Dataset/ (its own spelling)."""
    names = ["1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "1002674143_1b742ab4b8.jpg"]
    pictures(root / "Flicker8k_Dataset", *names)
    told = [(name, k, text) for name, text in zip(names, EN, strict=True) for k in (0, 1)]
    (root / "Flickr8k.token.txt").write_text("".join(f"{name}#{k}\t{text} {k} .\n" for name, k, text in told))
    (root / "Flickr8k.lemma.token.txt").write_text("".join(f"{n}#0\t{t}\n" for n, t in zip(names, EN, strict=True)))
    (root / "Flickr_8k.trainImages.txt").write_text(f"{names[0]}\n{names[1]}\n")
    (root / "Flickr_8k.testImages.txt").write_text(f"{names[2]}\n")
    return root


def flickr_cn(root: Path) -> Path:
    """Flickr8k-CN: flickr8kzhc.caption.txt with NAME#zhc#N, and lists of names without extension."""
    names = ["1000268201_693b08cb0e", "1001773457_577c3a7d70", "1002674143_1b742ab4b8"]
    pictures(root / "images", *(f"{name}.jpg" for name in names))
    lines = [f"{name}.jpg#zhc#0 {text}" for name, text in zip(names, ZH, strict=True)]
    (root / "flickr8kzhc.caption.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "flickr8ktest.txt").write_text("\n".join(names[1:]) + "\n")
    (root / "flickr8ktrain.txt").write_text(names[0] + "\n")
    return root


def coco(root: Path) -> Path:
    names = [f"COCO_val2014_00000000000{n}.jpg" for n in range(3)]
    pictures(root / "val2014", *names)
    body = {
        "info": {"description": "COCO 2014 Dataset", "version": "1.0", "year": 2014},
        "images": [
            {"license": n + 1, "file_name": name, "coco_url": f"http://images.cocodataset.org/val2014/{name}",
             "height": 48, "width": 64, "date_captured": "2013-11-14 11:18:45", "id": 391895 + n}
            for n, name in enumerate(names)
        ],
        "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "x"}],
        "annotations": [
            {"image_id": 391895 + n, "id": 100 * n + k, "caption": text}
            for n in range(3) for k, text in enumerate((EN[n], EN[n] + " on a light ground"))
        ],
    }  # fmt: skip
    write_json(root / "annotations" / "captions_val2014.json", body)
    write_json(root / "annotations" / "instances_val2014.json", {**body, "annotations": []})
    return root


def coco_cn(root: Path) -> Path:
    pictures(root / "images", "a.jpg", "b.jpg", "c.jpg")
    body = {
        "images": [{"id": f"i{n}", "file_name": name} for n, name in enumerate(("a.jpg", "b.jpg", "c.jpg"))],
        "annotations": [{"id": n, "image_id": f"i{n}", "caption": ZH[n]} for n in range(3)],
    }
    write_json(root / "coco-cn_test.json", body)
    return root


def karpathy(root: Path) -> Path:
    pictures(root / "images", "0.jpg", "1.jpg", "2.jpg")
    images = [
        {"filename": f"{n}.jpg", "imgid": n, "sentids": [n], "split": ("train", "val", "test")[n],
         "sentences": [{"tokens": EN[n].split(), "raw": EN[n], "imgid": n, "sentid": n}]}
        for n in range(3)
    ]  # fmt: skip
    write_json(root / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})
    return root


def aic_icc(root: Path) -> Path:
    names = [f"{n}a1b2c3.jpg" for n in range(3)]
    pictures(root / "caption_validation_images_20170910", *names)
    body = [
        {"url": f"http://m4.biz.itc.cn/{n}.jpeg", "image_id": names[n], "caption": [ZH[n], ZH[n] + "在图中"]}
        for n in range(3)
    ]
    write_json(root / "caption_validation_annotations_20170910.json", body)
    return root


def chinese_clip(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, members in (("train", (0, 1)), ("valid", (2,))):
        rows = [f"{1000 + n}\t{encode(PICTURES[n], urlsafe=n == 1)}" for n in members]
        (root / f"{split}_imgs.tsv").write_text("\n".join(rows) + "\n")
        texts = [{"text_id": n, "text": ZH[n], "image_ids": [1000 + n]} for n in members]
        if split == "train":
            texts.append({"text_id": 9, "text": "一个形状", "image_ids": [1000, 1001]})
        write_lines(root / f"{split}_texts.jsonl", texts)
        write_lines(root / f"{split}_texts.tr.jsonl", [{"image_id": 1000 + n, "text_ids": [n]} for n in members])
    return root


def muge(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{2000 + n}\t{encode(PICTURES[n])}" for n in range(3)]
    (root / "MR_valid_imgs.tsv").write_text("\n".join(rows))  # its last line may end without a newline
    queries = [{"query_id": n, "query_text": ZH[n], "item_ids": [2000 + n]} for n in range(3)]
    write_lines(root / "MR_valid_queries.jsonl", queries)
    return root


def chinese_clip_lmdb(root: Path) -> Path:
    imgs = {str(1000 + n).encode(): encode(PICTURES[n], urlsafe=True).encode() for n in range(3)}
    pairs = {str(n).encode(): pickle.dumps((1000 + n, n, ZH[n])) for n in range(3)}
    write_lmdb(root / "lmdb" / "valid" / "imgs", imgs | {b"num_images": b"3"})
    write_lmdb(root / "lmdb" / "valid" / "pairs", pairs | {b"num_samples": b"3"})
    return root


def sample(n: int) -> dict[str, bytes]:
    told = {
        "caption": EN[n], "url": f"https://example.com/{n}.jpg", "key": f"{n:09d}", "status": "success",
        "error_message": None, "width": 64, "height": 48, "original_width": 640, "exif": "{}" * 300,
        "similarity": 0.31,
    }  # fmt: skip
    head = f"{n:09d}"
    return {f"{head}.jpg": PICTURES[n], f"{head}.txt": EN[n].encode(), f"{head}.json": json.dumps(told).encode()}


def webdataset(root: Path) -> Path:
    write_tar(root / "00000.tar", sample(0) | sample(1))
    write_tar(root / "00001.tar", sample(2))
    return root


def img2dataset(root: Path) -> Path:
    for n in range(3):
        folder = root / f"{n // 2:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in sample(n).items():
            (folder / name).write_bytes(content)
    return root


def csv(root: Path) -> Path:
    pictures(root / "pics", "0.jpg", "1.jpg", "2.jpg")
    rows = [f'pics/{n}.jpg,"{ZH[n]}","{EN[n]}, drawn",{("train", "train", "test")[n]}' for n in range(3)]
    (root / "data.csv").write_text("image,zh,en,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return root


def openclip(root: Path) -> Path:
    pictures(root / "pics", "0.jpg", "1.jpg", "2.jpg")
    rows = [f"{root}/pics/{n}.jpg\t{EN[n]}" for n in range(3)]
    (root / "train.tsv").write_text("filepath\ttitle\n" + "\n".join(rows) + "\n")
    return root


def flickr30k_table(root: Path) -> Path:
    pictures(root / "flickr30k_images", "0.jpg", "1.jpg", "2.jpg")
    rows = [f"{n}.jpg| 0| {EN[n]} ." for n in range(3)]
    (root / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(rows) + "\n")
    return root


# Builder -> (format, file that may be named in place of the folder, fields, captions)
LAYOUTS: dict[Callable[[Path], Path], tuple[str, str, tuple[str, ...], int]] = {
    captions: ("captions", "captions.jsonl", ("zh", "en"), 6),
    flickr: ("flickr", "Flickr8k.token.txt", ("en",), 6),
    flickr_cn: ("flickr", "flickr8kzhc.caption.txt", ("zh",), 3),
    coco: ("coco", "annotations/captions_val2014.json", ("en",), 6),
    coco_cn: ("coco", "coco-cn_test.json", ("zh",), 3),
    karpathy: ("karpathy", "dataset_flickr8k.json", ("en",), 3),
    aic_icc: ("aic-icc", "caption_validation_annotations_20170910.json", ("zh",), 6),
    chinese_clip: ("chinese-clip", "", ("zh",), 5),
    muge: ("muge", "MR_valid_queries.jsonl", ("zh",), 3),
    chinese_clip_lmdb: ("chinese-clip-lmdb", "lmdb/valid", ("zh",), 3),
    webdataset: ("webdataset", "", ("en",), 3),
    img2dataset: ("img2dataset", "", ("en",), 3),
    csv: ("csv", "data.csv", ("zh", "en"), 6),
    openclip: ("csv", "train.tsv", ("en",), 3),
    flickr30k_table: ("csv", "results.csv", ("en",), 3),
}
