# SPDX-License-Identifier: Apache-2.0
"""The confidence in a caption: how probable it is that it would score well.

The probability of a caption says little of that. It falls with every word, and
some captions are probable for any image. So the confidence is a logistic
function of two numbers per word, both free of the caption's length:

  log probability  of the caption, given the image
  gain             the log probability, less that given the mean image: what
                   this image adds

`fit_confidence` fits it for a checkpoint, and writes `confidence.json`.
"""

from collections.abc import Sequence
import dataclasses
import os

from absl import logging
import numpy as np

from im2txt.inference_utils import ensemble
from im2txt.inference_utils import likelihood
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
    measured: figures on other images, by name; see `confidence_fit`.
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
      numbers: float64 [captions, 2], see `Scorer`.
    """
    return 1 / (
      1 + np.exp(-(self.bias + numbers @ [self.log_probability, self.gain]))
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


class Scorer:
  """Computes what the confidence is a function of.

  Args:
    model: wrote the captions.
    mean_features: float32 [feature_size of the model].

  Raises:
    ValueError: the features have another size.
  """

  def __init__(
    self, model: ensemble.Model, mean_features: Sequence[float] | np.ndarray
  ) -> None:
    if len(mean_features) != model.feature_size:
      raise ValueError(
        f'{FILE_NAME} has mean_features of {len(mean_features)} numbers, and '
        f'the model {model.feature_size}: run fit_confidence again'
      )
    self._mean = np.asarray(mean_features, np.float32)
    self._likelihood = likelihood.Likelihood(model)

  def __call__(
    self,
    captions: Sequence[Sequence[int]],
    log_probabilities: Sequence[float] | np.ndarray,
  ) -> np.ndarray:
    """Returns (log probability, gain) per word, float64 [captions, 2].

    Args:
      captions: word ids, <S> first.
      log_probabilities: of the captions, given their images.
    """
    words = np.array([len(caption) - 1 for caption in captions])
    prior = np.zeros(len(captions))
    # A caption of no word has no probability either.
    told = np.flatnonzero(words)
    if len(told):
      entropies = self._likelihood.cross_entropies(
        np.tile(self._mean, [len(told), 1]), [captions[i] for i in told]
      )
      starts = np.append(0, np.cumsum(words[told])[:-1])
      prior[told] = -np.add.reduceat(entropies.astype(np.float64), starts)
    logs = np.asarray(log_probabilities, np.float64)
    return (
      np.stack([logs, logs - prior], axis=1) / np.maximum(words, 1)[:, None]
    )
