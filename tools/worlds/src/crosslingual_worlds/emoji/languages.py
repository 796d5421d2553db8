"""Languages of the emoji world: those that name more than a thousand emoji in CLDR 48.2 (scripts
count as languages, regions do not).
"""

LANGUAGES = tuple(
    """
    af ak am ar as az ba be bg bn br bs ca chr cs cv cy da de dsb el en es et eu fa fi fil fo fr ga
    gd gl gu ha he hi hr hsb hu hy id ig is it ja jv ka kk kk-Arab kl km kn ko kok ky lb lo lt lv mi
    mk ml mn mr ms mt my ne nl no nso om or pa pa-Arab pcm pl ps pt qu quc rm ro ru rw sc sd shn si
    sk sl so sq sr sr-Latn sv sw ta te tg th ti tk tn to tr ug uk ur uz vi wo xh yo yue yue-Hans zh
    zh-Hant zu
""".split()
)
