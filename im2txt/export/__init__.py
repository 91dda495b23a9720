# SPDX-License-Identifier: Apache-2.0
"""Models as graphs of TensorFlow alone, to be run without im2txt."""
