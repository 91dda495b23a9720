# SPDX-License-Identifier: Apache-2.0
"""Data sets: captions files, images, archives, and the shards made of them."""
