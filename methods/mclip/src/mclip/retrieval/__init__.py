"""A trained model in use: recall by language, embeddings for an index, and search."""
