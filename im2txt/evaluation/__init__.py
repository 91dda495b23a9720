# SPDX-License-Identifier: Apache-2.0
"""Scoring checkpoints and captions; programs share it."""
