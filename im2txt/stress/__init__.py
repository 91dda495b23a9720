# SPDX-License-Identifier: Apache-2.0
"""Deliberate faults: what survives damage, kills and power cuts."""
