# SPDX-License-Identifier: Apache-2.0
"""Measures speed, and compares it with the limits of the machine."""
