"""Golden texts: short texts in many scripts that tell one tokenization from another.

Tokenizers that give the same ids for all of them, alone and in pairs, are taken for the same: what
libraries change between releases (normalization, added tokens, spaces, bytes) shows in one of them.
"""

from __future__ import annotations

# Appended to, never changed: digests of their ids stand in stores, checkpoints and bundles.
GOLDEN_TEXTS = (
    "The parcel arrived two days late, but the seller refunded it at once.",
    "it's NOT what I've ordered; they're (still) \"waiting\"... 100% \u2014 don\u2019t!",
    "Das Paket kam zwei Tage zu spät an, größere Übergänge inklusive.",
    "L'été dernier, j'ai reçu un garçon très naïf à l'hôtel où œuvrait Zoë.",
    "¿Dónde está el niño? ¡Mañana llegará a São Paulo, coração!",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. İstanbul'da ığdır. Đường phố Việt Nam.",
    "Съешь ещё этих мягких французских булок, да выпей чаю. Їжак і ґанок.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق",
    "עטלף אבק נס דרך מזגן שהתפוצץ כי חם. שָׁלוֹם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "আমি বাংলায় গান গাই। தமிழ் மொழி. తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ සිංහල",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ພາສາລາວ ភាសាខ្មែរ မြန်မာဘာသာ",
    "包裹晚到了兩天，但賣家立刻退款。软件包的说明。",
    "荷物は二日遅れで届いたが、すぐに返金された。ｶﾀｶﾅとＡＢＣ１２３",
    "소포가 이틀 늦게 도착했지만 바로 환불받았습니다.",
    "ქართული ენა. Հայերեն լեզու. አማርኛ ቋንቋ. Монгол хэл. བོད་སྐད།",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ ☂ \U0001f9ff ﬁne ﬂow ½ x² €5 ™",
    "e\u0301te\u0301 A\u030angstro\u0308m \u1112\u1161\u11ab",  # decomposed
    "two  spaces, a\ttab, a\nline end, a\u00a0no-break space, zero\u200bwidth, soft\u00adhyphen",
    "  begins and ends with spaces  ",
    "https://example.org/a_b?c=d&e=%20f#g user@example.org C:\\temp\\x.txt #tag @name",
    "def f(x): return x[0]**2 + 3.14e-10 # 1,234,567.89 2026-11-30 12:34:56",
    "UPPER lower MiXeD camelCase snake_case aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<s> </s> <unk> <pad> <mask> [CLS] [SEP] [PAD] [UNK] [MASK] <|endoftext|>",
    "antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft",
    ".",
)
GOLDEN_PAIRS = (
    ("A man is playing a guitar.", "Ein Mann spielt Gitarre."),
    ("一个人在弹吉他。", "Человек играет на гитаре."),
)
