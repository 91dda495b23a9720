# SPDX-License-Identifier: Apache-2.0
"""Captions as text: tokenizers, vocabularies, and records of their use."""
