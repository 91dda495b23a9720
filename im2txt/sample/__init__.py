# SPDX-License-Identifier: Apache-2.0
"""The painted sample of the quick start."""
