"""What `--help` says beside the options: groups of verbs, an example of each, and all of it in Chinese as well."""

from __future__ import annotations

import os
from typing import Any

GROUPS = {
    "Search": ("query", "match", "classify"),
    "Index": ("build-index", "add", "remove", "sync", "sources", "info"),
    "Upkeep": ("duplicates", "verify", "compact", "tune", "export", "import"),
    "Evaluate": ("eval",),
    "Serve": ("serve",),
    "Models": ("models", "embed", "caption"),
    "Try it": ("demo",),
}

EXAMPLES = {
    "": (
        "brivl-search build-index ./images",
        'brivl-search query "一只在草地上的狗"',
        "brivl-search query --image holiday.jpg",
    ),
    "query": (
        "brivl-search query a dog on grass",
        'brivl-search query "雪地里的狗" --minus "人" -k 20',
        "brivl-search query --image holiday.jpg --under photos/2024",
        "brivl-search query a dog on grass --rerank-with hf:Salesforce/blip-itm-base-coco",
    ),
    "match": ('brivl-search match --text "草地上的狗" --text "a cat" --image a.jpg',),
    "classify": ("brivl-search classify --labels labels.txt photos/ -k 3",),
    "build-index": (
        "brivl-search build-index ./images",
        "brivl-search build-index annotations.json --images ./val2014 -i indexes/coco",
    ),
    "add": ("brivl-search add new/ one.jpg",),
    "remove": ("brivl-search remove --under photos/private",),
    "sync": ("brivl-search sync",),
    "sources": ("brivl-search sources", "brivl-search sources move photos /mnt/photos"),
    "info": ("brivl-search info", "brivl-search info --format json"),
    "duplicates": (
        "brivl-search duplicates",
        "brivl-search duplicates --kind exact --print-others0 | xargs -0 ls -l",
    ),
    "verify": ("brivl-search verify", "brivl-search verify --repair"),
    "compact": ("brivl-search compact",),
    "tune": ("brivl-search tune --recall 0.99 --queries queries.txt",),
    "export": ("brivl-search export vectors/ --to parquet",),
    "import": ("brivl-search import vectors/", "brivl-search import --vectors v.npy --records v.jsonl"),
    "eval": ("brivl-search eval --recall-at 1,5,10", "brivl-search eval --dataset photos --report report.html"),
    "serve": ("brivl-search serve", "brivl-search serve --host 0.0.0.0 --token $TOKEN"),
    "models": (
        "brivl-search models list",
        "brivl-search models show brivl-mini",
        "brivl-search models bench brivl-mini",
    ),
    "embed": ("brivl-search embed photos/ --out photos.npy", 'brivl-search embed --text "一只狗"'),
    "caption": (
        "brivl-search caption photos/ --lang en --out photos/captions.jsonl",
        "brivl-search caption a.jpg -n 3",
    ),
    "demo": ("brivl-search demo",),
}

_PROGRAM = "Search photos by Chinese and English text, and captions by photo."
_ZH_PROGRAM = "用中文或英文搜索照片，也可以用照片搜索说明文字。"
_ZH_TITLES = {
    "Search": "搜索",
    "Index": "索引",
    "Upkeep": "维护",
    "Evaluate": "评测",
    "Serve": "服务",
    "Models": "模型",
    "Try it": "试一试",
    "Examples": "例子",
}
_ZH = {
    "query": "按文字或图片查找照片或说明文字。",
    "match": "判断文字与图片是否相符：余弦相似度和概率。",
    "classify": "只凭类别名称（中文或英文）给图片分类。",
    "build-index": "为文件夹中的图片（和 captions.jsonl）建立索引；再次运行只处理变化。",
    "add": "向索引添加图片、文件夹或说明文字；不删除任何内容。",
    "remove": "从索引中去掉图片及其说明文字；文件本身不动。",
    "sync": "让索引与文件夹保持一致：加入新的，去掉已不存在的。",
    "sources": "列出索引所包含的文件夹和文件；文件夹搬家后用 move 指明新位置。",
    "info": "显示索引的内容：行数、编码器、分片、大小、搜索方式。",
    "duplicates": "找出重复的照片，每组最好的排在最前；不改动也不删除任何文件。",
    "verify": "检查每个分片的校验和与行数。",
    "compact": "合并小分片，清除已删除的行，必要时重新训练量化器。",
    "tune": "用真实查询比较 IVF-PQ 与精确搜索，保存最快且达标的设置。",
    "export": "导出全部向量和记录。",
    "import": "导入向量和记录。",
    "eval": "评测检索质量：文字找图片、图片找文字（recall@k）。",
    "serve": "通过 HTTP 提供搜索服务，并带有网页。",
    "models": "编码器：列出并推荐、测速、转换、检查、校准。",
    "embed": "把图片和文字变成向量。",
    "caption": "为照片写说明文字（中文或英文）。",
    "demo": "为随 scikit-image 和 scikit-learn 提供的照片建立索引并搜索。",
}


def chinese() -> bool:
    """Whether the user's locale is Chinese, as gettext reads the environment."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.lower().startswith("zh")
    return False


def program() -> str:
    """What the program is, in a line."""
    return _ZH_PROGRAM if chinese() else _PROGRAM


def title(group: str) -> str:
    """A heading."""
    return _ZH_TITLES[group] if chinese() else group


def summary(command: Any, name: str) -> str:
    """A verb in a line or two, never cut."""
    if chinese() and name in _ZH:
        return _ZH[name]
    return " ".join(str(command.help or "").split("\n\n")[0].split())


def dress(command: Any, name: str) -> None:
    """Gives a verb its examples, and its summary in the user's language."""
    if chinese() and name in _ZH:
        command.help = _ZH[name]
    if not command.epilog and name in EXAMPLES:
        command.epilog = "\b\n" + "\n".join([f"{title('Examples')}:", *(f"  {line}" for line in EXAMPLES[name])])


def write_examples(formatter: Any, name: str) -> None:
    """The examples of the program itself."""
    with formatter.section(title("Examples")):
        for line in EXAMPLES[name]:
            formatter.write(f"  {line}\n")


def interrupted(verb: str | None) -> str:
    """What Ctrl-C is answered with."""
    if verb == "serve":
        return "stopped"
    if verb in ("build-index", "add", "sync", "import", "compact"):
        return "interrupted; what was done is kept, run the same command to go on"
    return "interrupted"


def pair_note(prior: float) -> str:
    """What the match of a pair means."""
    share = {0.5: ("half", "一半")}.get(prior, (f"{prior:.0%}", f"{prior:.0%}"))
    if chinese():
        return f"match：假如有{share[1]}的图文对相符，这一对相符的概率"
    return f"match: the chance that text and picture belong together, where {share[0]} of all pairs do"


def nothing_fits(kind: str, least: float) -> str:
    """What is said above hits none of which fits; `kind` is "image" or "text"."""
    if chinese():
        what = {"image": "没有照片", "text": "没有说明文字"}[kind]
        return f"{what}的匹配度达到 {least:.0%}，下面是最接近的"
    what = {"image": "photo", "text": "caption"}[kind]
    return f"no {what} reaches {least:.0%}: the best are shown"


def counted(kind: str, fit: float, rows: int) -> str:
    """How many fit, in a line; `kind` is "image" or "text"."""
    about = f"{fit:.1f}" if fit < 10 else f"{fit:,.0f}"
    if chinese():
        what = {"image": "张照片", "text": "条说明文字"}[kind]
        return f"{rows:,} {what}中约有 {about} {what[0]}相符（各自概率之和）"
    what = {"image": "photos", "text": "captions"}[kind]
    return f"about {about} of {rows:,} {what} fit (the sum of their chances)"


def purposes() -> dict[str, str]:
    """What encoders are recommended for, in the user's language; empty: as it is."""
    if not chinese():
        return {}
    return {
        "Chinese": "中文",
        "Chinese and English": "中文和英文",
        "a laptop": "笔记本电脑",
        "a GPU": "有 GPU",
    }


def demo_indexed(pictures: int, index: str) -> str:
    """What the demo says of its index."""
    if chinese():
        return f"{pictures:,} 张随 scikit-image 和 scikit-learn 提供的图片已在索引 {index} 中"
    return f"{pictures:,} pictures of scikit-image and scikit-learn are in the index {index}"


def verdict(right: bool, there: bool) -> str:
    """Whether a hit of the demo is what was expected; `there`: the pictures show what was asked for."""
    if chinese():
        return ("正确" if right else "错误") if there else ("正确：图库中没有" if right else "错误：图库中没有")
    return ("right" if right else "wrong") if there else ("rightly doubted" if right else "wrong: none shows it")


def demo_judged(right: int, there: int, doubted: int, absent: int) -> str:
    """How often the demo's first hits are right, and how often it is said that nothing fits."""
    if chinese():
        return f"\n首个结果正确：{right} / {there}；图库中没有的 {absent} 项中，{doubted} 项被指出没有匹配"
    return (
        f"\nfirst hits that are right: {right} of {there}; of {absent} things that no picture shows, {doubted} fit none"
    )


def demo_ended(page: str, index: str) -> str:
    """What comes after the demo."""
    if chinese():
        return f'结果页面：{page}\n自己试试：brivl-search query "……" --index {index}'
    return f'contact sheet: {page}\nTry your own: brivl-search query "..." --index {index}'
