"""Cross-lingual adapters as nodes of ComfyUI."""
