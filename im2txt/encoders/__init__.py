# SPDX-License-Identifier: Apache-2.0
"""Inception v3 in integers of 8 bits, for several runtimes."""
