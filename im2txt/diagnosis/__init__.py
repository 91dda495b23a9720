# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a training run, and what to do about it."""
