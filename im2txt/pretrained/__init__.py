# SPDX-License-Identifier: Apache-2.0
"""Inception and the trained model that come ready-made."""
