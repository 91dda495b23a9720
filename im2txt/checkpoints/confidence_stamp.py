# SPDX-License-Identifier: Apache-2.0
"""What `fit_confidence` found for a checkpoint: `confidence.json` beside it.

See `inference_utils.confidence` for what it is a function of.
"""

import dataclasses
import os
from typing import Any

from absl import logging
import numpy as np

from im2txt.runtime import stamps

FILE_NAME = 'confidence.json'


@dataclasses.dataclass(frozen=True)
class Confidence:
  """The content of confidence.json.

  Attributes:
    global_step: of the checkpoint that it was fitted for.
    cider: the CIDEr from which on a caption counts as good.
    bias: of the logistic function.
    log_probability: weight of the log probability per word.
    gain: weight of the gain per word.
    mean_features: of the images that it was fitted on.
    measured: figures on other images, by name; see
      `evaluation.confidence_fit.measure`.
  """

  global_step: int
  cider: float
  bias: float
  log_probability: float
  gain: float
  mean_features: list[float]
  measured: dict[str, float]

  def of(self, numbers: np.ndarray) -> np.ndarray:
    """Returns confidences from 0 to 1, float64 [captions].

    Args:
      numbers: float64 [captions, 2], see `inference_utils.confidence.Scorer`.
    """
    return 1 / (1 + np.exp(-self.logits(numbers)))

  def logits(self, numbers: Any) -> Any:
    """Returns the logits of `of`; of a tensor it is a tensor."""
    return (
      self.bias
      + self.log_probability * numbers[:, 0]
      + self.gain * numbers[:, 1]
    )


_FILE = stamps.StampFile(FILE_NAME, Confidence, 'without confidences')
save = _FILE.save


def load(directory: str, global_step: int) -> Confidence | None:
  """Returns the confidence fitted for a checkpoint; None if there is none.

  Args:
    directory: of the checkpoint.
    global_step: of the checkpoint. A confidence of another step is not used,
      with a warning.

  Raises:
    ValueError: the file is damaged.
  """
  found = _FILE.load(directory)
  if found and found.global_step != global_step:
    logging.warning(
      '%s is of step %d, not %d: no confidences; fit_confidence makes it anew',
      os.path.join(directory, FILE_NAME),
      found.global_step,
      global_step,
    )
    return None
  return found
