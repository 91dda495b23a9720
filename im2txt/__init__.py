# SPDX-License-Identifier: Apache-2.0
"""im2txt: Show and Tell, a neural image caption generator."""

import os

# TensorFlow's C++ start-up chatter would bury the one line a user needs; it is
# read when TensorFlow is first imported, so it is set here.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
