# SPDX-License-Identifier: Apache-2.0
"""Pictures and pages for people."""

from monai_cadp.reports.curves import Point, curves
from monai_cadp.reports.study_page import Picture, Section, study_page
from monai_cadp.reports.text_table import text_table

__all__ = ["Picture", "Point", "Section", "curves", "study_page", "text_table"]
