# SPDX-License-Identifier: Apache-2.0
"""Packaging of monai_cadp."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"
PACKAGE = (ROOT / "monai_cadp" / "__init__.py").read_text(encoding="utf-8")

# What only some tasks need; monai_cadp.extras says which, where one is missing. mlflow and nilearn happen to bring the
# libraries of "studies", so that the first study of the README needs no more than the core.
EXTRAS = {
    # requests and urllib3 come with dicomweb-client, whose requests they send.
    "dicom": ["pydicom>=3", "highdicom>=0.25", "dicomweb-client>=0.61", "requests", "urllib3>=2"],
    # Brings connected-components-3d, fill_voids and fastremap, which are under the LGPL 3.0.
    "brain": ["deepbet==1.0.*"],
    "studies": ["matplotlib", "scikit-image", "scikit-learn"],
    "dp-training": ["opacus>=1.6"],
    "postgres": ["psycopg[binary]>=3"],
    # What builds the documentation site, which the tests do too.
    "docs": ["sphinx>=8", "pydata-sphinx-theme", "myst-nb"],
}
ALL = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    name="monai_cadp",
    version=re.findall(r'^__version__ = "(.+)"$', PACKAGE, flags=re.MULTILINE)[0],
    description="Content-aware differential privacy for 2D and 3D medical images with conditional invertible networks",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # Bundles and studies lie beside the package here, and inside it where it is installed (monai_cadp.bundles).
    packages=[*find_packages(include=["monai_cadp*"]), "monai_cadp._bundles", "monai_cadp._configs"],
    package_dir={"monai_cadp._bundles": "bundles", "monai_cadp._configs": "configs"},
    # Each kind of file by name: nothing that a run has left in a bundle's folder is ever shipped.
    package_data={
        "monai_cadp": ["py.typed"],
        "monai_cadp._bundles": [
            "*/LICENSE",
            "*/configs/*.conf",
            "*/configs/*.json",
            "*/configs/*.yaml",
            "*/docs/*.md",
            "*/docs/*.txt",
            "cadp_brain_mr/models/model.pt",
            "cadp_chest_xray/models/model.pt",
            "cadp_chest_xray/samples/*/*.png",
        ],
        "monai_cadp._configs": ["*.yaml", "studies/*.yaml"],
    },
    install_requires=[
        "torch>=2.8,<2.14",
        "monai==1.6.*",
        "FrEIA==0.2",
        "pytorch-ignite>=0.5",
        "mlflow>=3",
        "sqlalchemy>=2",
        "nibabel",
        "SimpleITK",
        "nilearn",
        "pillow",
        "filelock",
        "numpy",
        "scipy",
        "cryptography",
        "opendp>=0.16",
        "dp-accounting",
        "tqdm",
        "pyyaml",
        "fire",
    ],
    extras_require={
        **EXTRAS,
        "all": ALL,
        "dev": [
            *ALL,
            "coverage",
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "pre-commit",
            "dicom-anonymizer",
            "jsonschema",
            "pypdf",
            "setuptools>=77",
        ],
    },
)
