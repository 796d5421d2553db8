"""Records of pictures and captions, shards of them, and the loader that reads them."""
