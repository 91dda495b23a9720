# SPDX-License-Identifier: Apache-2.0
"""Batches for training and evaluation, from shards or cached features."""
