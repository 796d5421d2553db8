"""`crosslingual-bench play`: a page in the browser that draws and searches in any language."""
