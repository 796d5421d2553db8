"""The file that ComfyUI imports from a folder in `custom_nodes`: the nodes are in `src`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "src"))  # the copied folder is all that it needs

from crosslingual_comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
