"""Everyday things in both languages, from what people photograph; no list of any data set."""

from __future__ import annotations

_LINES = """
狗 a dog|猫 a cat|马 a horse|牛 a cow|羊 a sheep|鸟 a bird|鱼 a fish|兔子 a rabbit|老虎 a tiger
大象 an elephant|猴子 a monkey|熊 a bear|鸭子 a duck|蝴蝶 a butterfly|蜜蜂 a bee|蛇 a snake|树 a tree
花 a flower|草地 grass|森林 a forest|山 a mountain|河 a river|湖 a lake|大海 the sea|沙滩 a beach
沙漠 a desert|雪 snow|雨 rain|云 clouds|月亮 the moon|日落 a sunset|星空 a starry sky|彩虹 a rainbow
瀑布 a waterfall|岛 an island|火 a fire|石头 a stone|冰 ice|田野 a field|花园 a garden|男人 a man|女人 a woman
孩子 a child|婴儿 a baby|老人 an old person|家庭 a family|人群 a crowd|医生 a doctor|老师 a teacher
警察 a policeman|厨师 a cook|新娘 a bride|学生 a student|士兵 a soldier|脸 a face|手 a hand|眼睛 an eye
头发 hair|胡子 a beard|微笑 a smile|衬衫 a shirt|裙子 a skirt|帽子 a hat|鞋 shoes|外套 a coat|眼镜 glasses
手表 a watch|戒指 a ring|包 a bag|雨伞 an umbrella|面包 bread|米饭 rice|面条 noodles|鸡蛋 an egg|肉 meat
蔬菜 vegetables|水果 fruit|苹果 an apple|香蕉 a banana|橙子 an orange|草莓 a strawberry|西瓜 a watermelon
葡萄 grapes|蛋糕 a cake|冰淇淋 ice cream|巧克力 chocolate|咖啡 coffee|茶 tea|啤酒 beer|牛奶 milk|汤 soup
沙拉 a salad|比萨 a pizza|汉堡 a hamburger|饺子 dumplings|奶酪 cheese|桌子 a table|椅子 a chair|床 a bed
沙发 a sofa|窗户 a window|门 a door|灯 a lamp|镜子 a mirror|书 a book|笔 a pen|剪刀 scissors|刀 a knife
杯子 a cup|瓶子 a bottle|盘子 a plate|钟 a clock|钥匙 a key|电话 a telephone|电脑 a computer|电视 a television
相机 a camera|钢琴 a piano|吉他 a guitar|球 a ball|玩具 a toy|礼物 a present|蜡烛 a candle|旗子 a flag
汽车 a car|公交车 a bus|卡车 a truck|火车 a train|自行车 a bicycle|摩托车 a motorcycle|飞机 an aeroplane
船 a boat|桥 a bridge|道路 a road|街道 a street|房子 a house|高楼 a tall building|教堂 a church|寺庙 a temple
城堡 a castle|学校 a school|医院 a hospital|商店 a shop|市场 a market|餐馆 a restaurant|厨房 a kitchen
浴室 a bathroom|卧室 a bedroom|图书馆 a library|火车站 a railway station|机场 an airport|公园 a park
游泳池 a swimming pool|体育场 a stadium|跑步 running|跳舞 dancing|唱歌 singing|游泳 swimming|滑雪 skiing
足球 football|篮球 basketball|钓鱼 fishing|睡觉 sleeping|吃饭 eating|读书 reading|画 a painting|地图 a map
收据 a receipt|垃圾 rubbish|烟花 fireworks
"""
_ITEMS = [item for line in _LINES.splitlines() for item in line.split("|") if item]
THINGS = tuple((item.partition(" ")[0], item.partition(" ")[2]) for item in _ITEMS)  # Chinese, English
