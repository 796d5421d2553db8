"""`crosslingual-bench retrieval`: Recall@K both ways, by language."""
