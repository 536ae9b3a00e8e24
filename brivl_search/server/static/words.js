// What the page says, in English and Chinese. {name} is filled in; nothing here is markup.

const en = {
  skip: "Skip to the results",
  home: "brivl: start page",
  tools: "View and settings",
  text_label: "What to look for, in Chinese or English",
  placeholder: "a dog on the beach · 雪地里的狗",
  placeholder_add: "… and some words",
  photo: "Photo {n}",
  pick: "Search with a picture",
  search: "Search",
  map: "Map",
  theme_auto: "Colours: as the system has them",
  theme_light: "Colours: light",
  theme_dark: "Colours: dark",
  language: "Language: 中文 (Chinese)",
  refine: "Refine the search",
  target: "What to find",
  images: "Photos",
  texts: "Captions",
  terms: "Also counted in this search",
  more_of: "more of",
  less_of: "less of",
  plus_label: "More of:",
  minus_label: "Less of:",
  add: "Add",
  flip_plus: "Counts for: {name}. Make it count against",
  flip_minus: "Counts against: {name}. Make it count for",
  weight: "Weight of {name}",
  remove: "Remove {name}",
  picture: "picture",
  filters: "Filters",
  under: "Folder",
  glob: "Name",
  from: "Taken from",
  to: "to (inclusive)",
  min_size: "At least (pixels)",
  where: "Field = value",
  min_match: "Match at least",
  match_note: "Only for one text on photos, or one picture on captions.",
  dedupe: "Show near-identical photos once",
  clear_filters: "Clear filters",
  any: "any",
  welcome: "What are you looking for?",
  collection: "{images} photos",
  collection_texts: "{images} photos · {texts} captions",
  welcome_hint: "Type in Chinese or English, or drop, paste or pick a photo.",
  some: "From this collection",
  like_title: "Like this photo",
  results: "Results",
  searching: "Searching …",
  found: "{n} · {ms} ms",
  found_more: "{n} shown · {ms} ms",
  end: "That is all there is.",
  end_limit: "The server shows at most {n}. Refine the search to see others.",
  tile: "{rank}. {name}",
  tile_match: "{rank}. {name}, match {match} %",
  match: "match",
  score: "cosine",
  match_title: "Probability that text and photo belong together",
  score_title: "Cosine of the two vectors: order within one search, not a percentage",
  alike_more: "+{n} near-identical",
  image_gone: "The file is gone, or was changed after it was indexed.",
  previous: "Previous (left arrow)",
  next: "Next (right arrow)",
  close: "Close (Esc)",
  like: "More like this",
  describe: "Find captions",
  plus_this: "Search for more of this photo",
  minus_this: "Search for less of this photo",
  captions: "Captions",
  alike: "Near-identical",
  copy: "Copy path",
  copied: "Copied",
  not_copied: "The browser does not allow copying: select the path and copy it",
  original: "Open the file",
  taken: "Taken",
  modified: "File changed",
  size: "Size",
  folder: "Folder",
  pixels: "{width} × {height} pixels",
  map_label: "Map of the collection",
  map_help: "Drag to move, scroll to zoom. With the keyboard: arrows go from photo to photo, + and − zoom, Enter opens, 0 shows everything.",
  map_canvas: "Map of {n} photos; alike ones lie near each other",
  map_loading: "Laying out the map …",
  map_part: "{n} of {all} photos, evenly chosen",
  zoom_in: "Zoom in",
  zoom_out: "Zoom out",
  zoom_all: "Show everything",
  drop: "Drop the photo to search with it",
  sign_in: "This server asks for its token",
  sign_in_hint: "It is the one that brivl-search serve was started with.",
  token: "Token",
  wrong_token: "That is not its token.",
  sign_in_go: "Continue",
  retry: "Try again",
  e_gone: "The server does not answer",
  e_gone_do: "It may have been stopped, or the connection is down. This page goes on by itself as soon as the server is back.",
  e_index: "There is no index to search",
  e_index_do: "Build one with brivl-search build-index FOLDER; this page goes on by itself once it is there.",
  e_empty: "Nothing fits",
  e_empty_do: "No photo of the collection passes all of this. Try other words.",
  e_empty_filters: "No photo of the collection passes these filters.",
  e_no_texts: "This collection has no captions",
  e_no_texts_do: "They come from a captions.jsonl beside the photos.",
  e_large: "This picture is too large",
  e_large_do: "The server takes files up to {megabytes} MB. Save a smaller copy and try that.",
  e_picture: "This picture cannot be used",
  e_not_picture: "This is not a picture",
  e_not_picture_do: "Drop a photo: JPEG, PNG, WebP, …",
  e_lost: "A picture of this search is no longer here",
  e_lost_do: "Pictures you drop are not kept in the link. Drop it again.",
  e_busy: "Too many requests at once",
  e_busy_do: "The server asks for a moment's patience.",
  e_item: "This photo is no longer in the index",
  e_item_do: "It was removed, or the index was built again.",
  e_usage: "The server cannot answer this",
  e_map: "There is no map yet",
  e_map_do: "A map needs photos in the index.",
  e_internal: "Something went wrong in the server",
  e_internal_do: "Its log says more.",
  e_date: "The dates exclude each other: {from} is after {to}.",
  e_size: "A size is written 800x600, or 1000 for both sides.",
  e_where: "A field is written name=value.",
};

const zh = {
  skip: "跳到结果",
  home: "brivl：首页",
  tools: "视图与设置",
  text_label: "想找什么：中文或英文",
  placeholder: "雪地里的狗 · a dog on the beach",
  placeholder_add: "再加一些文字……",
  photo: "照片 {n}",
  pick: "用图片搜索",
  search: "搜索",
  map: "地图",
  theme_auto: "颜色：跟随系统",
  theme_light: "颜色：浅色",
  theme_dark: "颜色：深色",
  language: "语言：English（英文）",
  refine: "细化搜索",
  target: "找什么",
  images: "照片",
  texts: "文字",
  terms: "同时计入搜索",
  more_of: "多一些",
  less_of: "少一些",
  plus_label: "多一些：",
  minus_label: "少一些：",
  add: "添加",
  flip_plus: "接近“{name}”。改为远离",
  flip_minus: "远离“{name}”。改为接近",
  weight: "“{name}”的权重",
  remove: "移除“{name}”",
  picture: "图片",
  filters: "筛选",
  under: "文件夹",
  glob: "文件名",
  from: "拍摄日期从",
  to: "到（含当天）",
  min_size: "最小尺寸（像素）",
  where: "字段 = 值",
  min_match: "匹配度不低于",
  match_note: "仅适用于：一段文字找照片，或一张图片找文字。",
  dedupe: "几乎相同的照片只显示一张",
  clear_filters: "清除筛选",
  any: "不限",
  welcome: "想找哪张照片？",
  collection: "{images} 张照片",
  collection_texts: "{images} 张照片 · {texts} 条文字描述",
  welcome_hint: "输入中文或英文，也可以拖入、粘贴或选择一张图片。",
  some: "来自这个图库",
  like_title: "相似照片",
  results: "结果",
  searching: "正在搜索……",
  found: "{n} 条 · {ms} 毫秒",
  found_more: "已显示 {n} 条 · {ms} 毫秒",
  end: "已经到底了。",
  end_limit: "服务器最多显示 {n} 条。换个说法可以看到其他结果。",
  tile: "第 {rank} 条：{name}",
  tile_match: "第 {rank} 条：{name}，匹配度 {match}%",
  match: "匹配",
  score: "余弦",
  match_title: "文字与照片相配的概率",
  score_title: "两个向量的余弦：只在同一次搜索内比较，不是百分比",
  alike_more: "另有 {n} 张几乎相同",
  image_gone: "文件已不存在，或在建立索引之后被改动过。",
  previous: "上一张（左方向键）",
  next: "下一张（右方向键）",
  close: "关闭（Esc）",
  like: "找相似照片",
  describe: "找文字描述",
  plus_this: "多找一些像这张的",
  minus_this: "少找一些像这张的",
  captions: "文字描述",
  alike: "几乎相同的照片",
  copy: "复制路径",
  copied: "已复制",
  not_copied: "浏览器不允许复制：请选中路径后自行复制",
  original: "打开原文件",
  taken: "拍摄时间",
  modified: "文件修改时间",
  size: "大小",
  folder: "文件夹",
  pixels: "{width} × {height} 像素",
  map_label: "图库地图",
  map_help: "拖动可移动，滚轮可缩放。键盘：方向键在照片之间移动，+ 和 − 缩放，回车打开，0 显示全部。",
  map_canvas: "{n} 张照片的地图，相似的照片彼此靠近",
  map_loading: "正在绘制地图……",
  map_part: "共 {all} 张照片，均匀选取了 {n} 张",
  zoom_in: "放大",
  zoom_out: "缩小",
  zoom_all: "显示全部",
  drop: "松开即可用这张图片搜索",
  sign_in: "此服务器需要令牌",
  sign_in_hint: "就是启动 brivl-search serve 时设定的令牌。",
  token: "令牌",
  wrong_token: "令牌不正确。",
  sign_in_go: "继续",
  retry: "重试",
  e_gone: "服务器没有应答",
  e_gone_do: "它可能已停止，或网络已断开。服务器恢复后，本页会自动继续。",
  e_index: "没有可搜索的索引",
  e_index_do: "请用 brivl-search build-index 文件夹 建立索引；建好后本页会自动继续。",
  e_empty: "没有符合的结果",
  e_empty_do: "图库中没有照片满足全部条件。换个说法试试。",
  e_empty_filters: "图库中没有照片满足这些筛选条件。",
  e_no_texts: "这个图库没有文字描述",
  e_no_texts_do: "文字描述来自照片旁边的 captions.jsonl。",
  e_large: "图片太大",
  e_large_do: "服务器最多接受 {megabytes} MB 的文件。请另存为较小的副本再试。",
  e_picture: "这张图片无法使用",
  e_not_picture: "这不是图片",
  e_not_picture_do: "请拖入照片：JPEG、PNG、WebP 等。",
  e_lost: "这次搜索用的图片已经不在了",
  e_lost_do: "拖入的图片不会保存在链接里。请再拖入一次。",
  e_busy: "请求太多",
  e_busy_do: "服务器请您稍等片刻。",
  e_item: "这张照片已不在索引中",
  e_item_do: "它已被移除，或索引已重新建立。",
  e_usage: "服务器无法回答这个请求",
  e_map: "还没有地图",
  e_map_do: "索引中要有照片才能绘制地图。",
  e_internal: "服务器出错了",
  e_internal_do: "详情见服务器日志。",
  e_date: "日期互相矛盾：{from} 晚于 {to}。",
  e_size: "尺寸写作 800x600，或用 1000 表示两边。",
  e_where: "字段写作 名称=值。",
};

export const LANGUAGES = { en, zh };

let language = "en";

export const current = () => language;

/** The words for `key` in the language of the page, with {places} filled in. */
export function t(key, values = {}) {
  const words = LANGUAGES[language][key];
  if (words === undefined) throw new Error(`no words for ${key}`);
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

// So that a screen reader takes the right voice; all that is asked of it is Chinese or English.
export const tongue = (text) => (/\p{Script=Han}/u.test(text) ? "zh" : "en");

/** Captions with those in the language of the page first. */
export const inOrder = (captions) => [...captions].sort((a, b) => (tongue(b.text) === language) - (tongue(a.text) === language));

/** A probability as per cent; near one with a decimal, since 100 would say certain. */
export const percent = (match) => (match > 0.99 ? Math.floor(1000 * match) / 10 : Math.round(100 * match));

export const number = (value) => new Intl.NumberFormat(language).format(value);

export function date(text) {
  const when = new Date(text);
  if (Number.isNaN(when.getTime())) return text;
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" }).format(when);
}

export function bytes(value) {
  const [amount, unit] = value < 1e6 ? [value / 1e3, "kilobyte"] : [value / 1e6, "megabyte"];
  return new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits: amount < 10 ? 1 : 0 }).format(amount);
}

/** What the browser asks for first, unless this page was told otherwise before. */
export function preferred(remembered, wanted) {
  if (remembered in LANGUAGES) return remembered;
  for (const one of wanted) {
    const short = one.toLowerCase().split("-")[0];
    if (short in LANGUAGES) return short;
  }
  return "en";
}

/** Speak `name` from now on: fills in all of the page that does not change. */
export function speak(name, root = document) {
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-title]")) node.title = t(node.dataset.tTitle);
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
