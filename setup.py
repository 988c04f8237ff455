# SPDX-License-Identifier: Apache-2.0
"""Packaging of monai_cadp."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

setup(
    name="monai_cadp",
    version="0.1.0",
    description="Content-aware differential privacy for 2D and 3D medical images with conditional invertible networks",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["monai_cadp*"]),
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
        "pydicom>=3",
        "pillow",
        "filelock",
        "numpy",
        "cryptography",
        "opendp>=0.16",
        "dp-accounting",
        "opacus>=1.6",
        "scikit-learn",
        "matplotlib",
        "tqdm",
        "pyyaml",
        "fire",
        "jsonschema",
    ],
    extras_require={
        "postgres": ["psycopg[binary]>=3"],
        "dev": [
            "coverage",
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "pre-commit",
            "dicom-anonymizer",
            "psycopg[binary]>=3",
            "pypdf",
        ],
    },
)
