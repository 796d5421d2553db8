"""The languages that the drawn world speaks."""

LANGUAGES = (
    "ar",
    "de",
    "en",
    "es",
    "fr",
    "hi",
    "it",
    "ja",
    "ko",
    "nl",
    "pl",
    "pt",
    "ru",
    "th",
    "tr",
    "uk",
    "vi",
    "zh",
)
"""BCP-47 codes of the eighteen languages of AltDiffusion-m18 (arXiv 2308.09991), which the testbed
speaks.
"""
