"""The languages of the drawn world."""

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
"""BCP-47 codes of eighteen languages, those of AltDiffusion-m18 (arXiv 2308.09991)."""
