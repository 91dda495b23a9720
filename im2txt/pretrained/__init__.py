# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights: Inception v3, and the shipped model."""
