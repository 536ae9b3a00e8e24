"""Plain queries as people type them, for tuning the index of a collection that has no captions."""

from __future__ import annotations

_THINGS = {
    "en": "a dog|a cat|a child|two women|a man in a red shirt|a crowd|a car|a bicycle|a boat|a horse|birds|flowers|"
    "food on a plate|a tall building|an old temple|a train|a football player|a document",
    "zh": "一只狗|一只猫|一个小孩|两个女人|一个穿红色衬衫的男人|一群人|一辆汽车|一辆自行车|一条船|一匹马|鸟|花|"
    "盘子里的食物|高楼|古老的寺庙|火车|足球运动员|一份文件",
}
_PLACES = {
    "en": "{}|{} on the grass|{} on the beach|{} in the snow|{} in a street|{} at night|{} near water|{} in a room|"
    "{} in the mountains|a photo of {} under a blue sky",
    "zh": "{}|草地上的{}|海滩上的{}|雪地里的{}|街上的{}|夜晚的{}|水边的{}|房间里的{}|山里的{}|蓝天下{}的照片",
}


def tuning_texts() -> list[str]:
    """360 queries, half Chinese, half English."""
    return [
        place.format(thing)
        for language in ("zh", "en")
        for thing in _THINGS[language].split("|")
        for place in _PLACES[language].split("|")
    ]
