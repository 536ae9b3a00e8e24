"""What people ask for in a word or two, and how captions tell whether a photo shows it; and what no photo shows.

A concept is right where an English caption of the photo has one of its words. Captions do not name everything that is
seen, so only things that captions hardly leave out are here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Chinese | English | words of captions, as a regular expression
_CONCEPTS = """
狗|a dog|dogs?|pupp(y|ies)
雪地里的狗|a dog in the snow|(?=.*\\bsnow)(?=.*\\b(dogs?|pupp))
海滩|beach|beach(es)?
骑自行车的人|a person riding a bicycle|bik(e|es|er|ers|ing)|bicycl(e|es|ing|ists?)
滑雪|skiing|ski(s|ing|er|ers)?
滑板|skateboard|skateboard\\w*
冲浪|surfing|surf\\w*
足球|soccer|soccer
篮球|basketball|basketball
棒球|baseball|baseball
网球|tennis|tennis
婴儿|a baby|bab(y|ies)|infants?|toddlers?
小女孩|a little girl|girls?
小男孩|a little boy|boys?
攀岩|rock climbing|climb(s|ing|er|ers)?
摩托车|motorcycle|motorcycl\\w*|motorbikes?|dirt ?bikes?
汽车|a car|cars?|trucks?
游泳池|swimming pool|pools?
吉他|guitar|guitars?
秋千|a child on a swing|swings?|swinging
马|a horse|horses?|horseback
瀑布|waterfall|waterfalls?
帐篷|tent|tents?
山|mountains|mountains?|cliffs?|hills?
湖|lake|lakes?
街上的人群|a crowd of people|crowds?|crowded
跳跃的人|someone jumping in the air|jump(s|ing|ed)?|leap(s|ing)?
船|a boat|boats?|canoes?|kayaks?|ships?|sail\\w*
鸟|a bird|birds?|seagulls?|geese|ducks?
猫|a cat|cats?|kittens?
乐队|musicians playing|bands?|musicians?|guitars?|drums?
蹦床|trampoline|trampolin\\w*
滑梯|a slide on a playground|slides?
两只狗|two dogs|two (\\w+ )?(\\w+ )?dogs|dogs .* each other
戴帽子的男人|a man wearing a hat|(?=.*\\bman\\b)(?=.*\\b(hat|cap|helmet)\\b)
打伞的人|a person with an umbrella|umbrellas?
气球|balloons|balloons?
婚礼|a wedding|wedding|bride|groom
吃东西|eating|eat(s|ing)?|food|meal
火车|a train|trains?
飞机|an airplane|(air)?planes?|jets?|aircraft
厨房|a kitchen|kitchens?
浴室|bathroom|bathrooms?|toilets?
披萨|pizza|pizzas?
长颈鹿|a giraffe|giraffes?
大象|an elephant|elephants?
斑马|zebras|zebras?
公交车|a bus|bus(es)?
卧室|a bedroom|bed(room)?s?
笔记本电脑|a laptop|laptops?|computers?
泰迪熊|a teddy bear|teddy
钟|a clock|clocks?
牛|cows|cows?|cattle
羊|sheep|sheep|lambs?
风筝|a kite|kites?
蛋糕|a cake|cakes?|cupcakes?
红绿灯|a traffic light|traffic lights?|stop ?lights?
冰箱|refrigerator|refrigerators?|fridges?
花|flowers|flowers?
日落|sunset|sun ?sets?|sunrise
"""

# What the photos of people's everyday life that are at hand do not show; each is looked up in captions and labels too.
_ABSENT = """
发票|invoice|invoices?|receipts?|购物小票
身份证|an identity card|identity
X光片|an X-ray of a chest|x-?rays?
显微镜下的细胞|cells under a microscope|microscop\\w*
电路板|a printed circuit board|circuit
乐谱|sheet music|sheet music
世界地图|a map of the world|maps?
二维码|a QR code|qr
潜水艇|a submarine|submarines?
北极熊|a polar bear|polar|bears?
企鹅|penguins|penguins?
仙人掌|a cactus|cactus
火山喷发|an erupting volcano|volcan\\w*|火山
木星|the planet Jupiter|jupiter|planets?
恐龙骨架|the skeleton of a dinosaur|dinosaur\\w*|skeletons?
核电站|a nuclear power station|nuclear
风力发电机|wind turbines|turbines?|windmills?
灯塔|a lighthouse|lighthouses?|灯塔
金字塔|the pyramids of Egypt|pyramids?
埃菲尔铁塔|the Eiffel tower|eiffel
自由女神像|the Statue of Liberty|statue of liberty
蝴蝶|a butterfly|butterfl\\w*|蝴蝶
水母|jellyfish|jelly
章鱼|an octopus|octopus
袋鼠|a kangaroo|kangaroos?|wallaby
骆驼|camels in the desert|camels?
鳄鱼|a crocodile|crocodiles?|alligators?
考拉|a koala|koalas?
寿司|sushi|sushi|寿司
饺子|dumplings|dumplings?|饺子
结婚证|a marriage certificate|certificate
收据|a receipt|receipts?|购物小票
药片|pills and tablets|pills?
注射器|a syringe|syringes?
牙齿X光|a dental scan|dental|dentist
国际象棋|a chess board|chess
显卡|a graphics card|graphics
缝纫机|a sewing machine|sewing
打字机|a typewriter|typewriters?
钢琴|a grand piano|pianos?
小提琴|a violin|violins?|cellos?|fiddle
萨克斯|a saxophone|saxophone|sax
太空站|a space station in orbit|space
宇航员|an astronaut|astronauts?
坦克|an army tank|tanks?
救护车|an ambulance|ambulance
消防车|a fire engine|fire ?(engine|truck)s?
直升机|a helicopter|helicopters?
热气球|a hot air balloon|balloons?
蜂巢|a honeycomb|bees?|hives?|honey\\w*
甲骨文|oracle bone inscriptions|inscription
股票走势图|a stock market chart|charts?|graph
表格|a spreadsheet|spreadsheet
源代码|source code on a screen|code
"""
_NONSENSE = """
asdf qwer zxcv
lorem ipsum dolor sit amet
xkcd 1234 foo bar
qqqqq wwwww
12345 67890
zzz
的的的的
饕餮魑魅魍魉
如果但是所以
the of and to
SELECT * FROM users WHERE id = 1
https://example.com/a?b=c
v1.2.3-rc4
error 0x80070005
quarterly revenue guidance
宏观经济政策
existential dread
贝叶斯定理
Schrödinger equation
微积分
democracy
量子纠缠
copyright notice
Kowalski
张伟
Shenzhen Longgang
通货膨胀
hjkl
blorp snizzle
"""


@dataclass(frozen=True)
class Concept:
    """A thing to ask for.

    Attributes:
        zh, en: how people ask.
        words: what captions say of it.
        labels: names that label collections have for it.
    """

    zh: str
    en: str
    words: re.Pattern[str]
    labels: frozenset[str]

    def shown(self, captions: Sequence[str]) -> bool:
        """Whether one of a photo's captions names it."""
        return any(self.words.search(text.lower()) for text in captions)


def _read(table: str) -> list[Concept]:
    found = []
    for line in table.strip().splitlines():
        zh, en, *words = line.split("|", 2)
        parts = words[0]
        pattern = parts if parts.startswith("(?=") else rf"\b({parts})\b"
        found.append(Concept(zh, en, re.compile(pattern), frozenset({zh, en.removeprefix("a ").removeprefix("an ")})))
    return found


def concepts() -> list[Concept]:
    """Things that some of the photos show."""
    return _read(_CONCEPTS)


def absent() -> list[Concept]:
    """Things that hardly any photo shows; those that do are found as for the others."""
    return _read(_ABSENT)


def nonsense() -> list[str]:
    """Texts that no photo fits."""
    return _NONSENSE.strip().splitlines()


def table(asked: Sequence[Concept], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """bool (concepts, photos): what is named in the captions of each photo."""
    return np.array([[one.shown(said) for said in captions] for one in asked], bool).reshape(len(asked), len(captions))
