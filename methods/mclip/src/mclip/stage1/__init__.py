"""mCLIP's first stage, on parallel text alone: XLM-R learns to put a sentence where its translation
lies, and a decoder to translate.
"""
