# SPDX-License-Identifier: Apache-2.0
"""im2txt: Show and Tell, a neural image caption generator."""

from im2txt.runtime import quiet_tensorflow

# Here, as TensorFlow is imported by any program, process or test after this.
quiet_tensorflow.install()
