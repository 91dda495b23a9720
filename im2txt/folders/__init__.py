# SPDX-License-Identifier: Apache-2.0
"""Folders of photos and videos: captions that go on where they stopped, search."""
