# SPDX-License-Identifier: Apache-2.0
"""Reading originals and writing releases: only voxels come in, only what was released goes out."""

from __future__ import annotations

from monai_cadp.data.acdc import ACDC
from monai_cadp.data.array_images import ArrayImages
from monai_cadp.data.brain_cohort import BrainCohort
from monai_cadp.data.brain_reading import ReadBrain
from monai_cadp.data.brain_template import brain_template_file
from monai_cadp.data.celeba import CelebA
from monai_cadp.data.class_folder import ClassFolder, FlatFolder, class_names_of
from monai_cadp.data.datalist import ImageList
from monai_cadp.data.digits import Digits
from monai_cadp.data.image_grid import image_grid, outlined_slices, save_image_grid
from monai_cadp.data.image_reading import ReadImage, ReadImageD, ReadImaged, ReadImageDict
from monai_cadp.data.labelled_volume_reading import ReadLabelledVolume
from monai_cadp.data.labelled_volumes import LabelledVolumes
from monai_cadp.data.masks import WithMasks, join_masks, keep_pieces, mask_distances, split_masks
from monai_cadp.data.medmnist import NpzImages
from monai_cadp.data.originals import open_originals
from monai_cadp.data.part import Part
from monai_cadp.data.people import people_of
from monai_cadp.data.public_grid import PublicGrid
from monai_cadp.data.scikit_table import ScikitTable
from monai_cadp.data.source import open_images
from monai_cadp.data.table import Table
from monai_cadp.data.table_column import CategoricalColumn, Column, ContinuousColumn, OrdinalColumn
from monai_cadp.data.table_rows import TableRows
from monai_cadp.data.table_schema import TableSchema
from monai_cadp.data.table_source import open_schema, open_table
from monai_cadp.data.volume_files import VolumeFiles
from monai_cadp.data.volume_reading import ReadVolume

__all__ = [
    "ACDC",
    "ArrayImages",
    "BrainCohort",
    "CategoricalColumn",
    "CelebA",
    "ClassFolder",
    "Column",
    "ContinuousColumn",
    "Digits",
    "FlatFolder",
    "ImageList",
    "LabelledVolumes",
    "NpzImages",
    "OrdinalColumn",
    "Part",
    "PublicGrid",
    "ReadBrain",
    "ReadImage",
    "ReadImageD",
    "ReadImageDict",
    "ReadImaged",
    "ReadLabelledVolume",
    "ReadVolume",
    "ScikitTable",
    "Table",
    "TableRows",
    "TableSchema",
    "VolumeFiles",
    "WithMasks",
    "brain_template_file",
    "class_names_of",
    "image_grid",
    "join_masks",
    "keep_pieces",
    "mask_distances",
    "open_images",
    "open_originals",
    "open_schema",
    "open_table",
    "outlined_slices",
    "people_of",
    "save_image_grid",
    "split_masks",
]
