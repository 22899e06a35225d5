"""Sphinx configuration: Markdown by MyST, the Furo theme, nothing fetched from elsewhere."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from castalia.version import __version__

project = "Castalia"
author = "the Castalia contributors"
release = version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Castalia {release}"
html_static_path: list[str] = []
html_show_sphinx = False
