# SPDX-License-Identifier: Apache-2.0
"""What tests notice: the code of the promise is broken in a random sample of places, one at a time."""
