"""Generation metrics, each with its definition and source, and the intervals of any of them."""
