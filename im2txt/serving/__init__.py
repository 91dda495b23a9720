# SPDX-License-Identifier: Apache-2.0
"""Captions over HTTP: requests of all clients share the batches of one model."""
