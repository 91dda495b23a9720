# SPDX-License-Identifier: Apache-2.0
"""Captions as text: tokenizers, vocabularies, and which belongs to what."""
