# SPDX-License-Identifier: Apache-2.0
"""Images and figures for people."""
