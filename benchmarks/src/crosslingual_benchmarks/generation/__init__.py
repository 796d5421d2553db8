"""`crosslingual-bench generation`: pictures from prompts in each language, and their scores."""
