# SPDX-License-Identifier: Apache-2.0
"""Measured claims: one script each, a table on the screen, JSON in results/."""
