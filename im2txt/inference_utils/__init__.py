# SPDX-License-Identifier: Apache-2.0
"""Captions from a trained model."""
