# SPDX-License-Identifier: Apache-2.0
"""The documentation site: ``python -m sphinx -W --keep-going -b html docs build/site``, without a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import monai_cadp  # noqa: E402

project = "monai_cadp"
author = "the authors of monai_cadp"
version = release = monai_cadp.__version__

extensions = [
    "mathml",
    "myst_nb",
    "public_names",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["**/.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Notebooks are executed in a temporary folder while the site is built; one that fails ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
# Logs and progress bars are left out, and what a cell prints is one block.
nb_output_stderr = "remove"
nb_merge_streams = True
# Kernels, and the commands that they run, are of this environment; they take the package from beside this folder, and
# one core.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
os.environ |= {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
os.environ.pop("MLFLOW_TRACKING_URI", None)

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
napoleon_use_ivar = True
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "monai_cadp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Pages that have none below them.
html_sidebars: dict[str, list[str]] = {"index": [], "get_started": [], "benchmarks": []}
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
