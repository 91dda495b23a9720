# SPDX-License-Identifier: Apache-2.0
"""Faults on purpose: what survives damage, kills and power cuts."""
