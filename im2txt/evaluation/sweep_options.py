# SPDX-License-Identifier: Apache-2.0
"""The options of sweep, which are its flags."""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import TypeVar

from im2txt.data import caption_files
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime.flag_dataclasses import field

_Number = TypeVar('_Number', int, float)


@dataclasses.dataclass(frozen=True)
class SweepOptions:
  """Which points to score, on what, and where the results go.

  Each field is a flag of that name.
  """

  checkpoint_path: str = field(
    '', model_flags.CHECKPOINT_TEXT + model_flags.ENSEMBLE_TEXT
  )
  vocab_file: str = field('', 'Vocabulary the model was trained with.')
  precision: str = field(
    'float32', model_flags.PRECISION_TEXT, model_flags.PRECISIONS
  )
  captions_file: str = field(
    '', 'References, in any format that build_caption_data reads.'
  )
  image_dir: str = field(
    '', 'Directory of the images of --captions_file, or a .zip file of it.'
  )
  split: str = field(
    '',
    'Take only the images of this split of --captions_file.',
    ('', *caption_files.SPLITS),
  )
  input_file_pattern: str = field(
    '',
    'File pattern of sharded TFRecord files, instead of --captions_file and '
    '--image_dir.',
  )
  max_images: int = field(
    0, 'Number of images to take; 0 for all.', lower_bound=0
  )
  output_dir: str = field('', 'Directory for sweep.json and sweep.png.')
  feature_dir: str = field(
    '',
    'Directory for the features of the images, 8 KB each per encoder. Sweeps of '
    'other checkpoints on the same images can share it. The default is '
    '--output_dir.',
  )
  keep_captions: bool = field(
    False,
    'Whether to write the captions of each point, as many as the beam is large, '
    'to captions-BEAM-FACTOR.json in --output_dir.',
  )
  beam_sizes: tuple[str, ...] = field(
    tuple(str(n) for n in range(1, 21)), 'Sizes of the beam.'
  )
  length_normalization_factors: tuple[str, ...] = field(
    ('0', '0.3', '0.7', '1'),
    'Length normalizations to try with each size of the beam.',
  )
  metrics: tuple[str, ...] = field(
    ('bleu_4', 'cider', 'mean_length', 'distinct_captions'),
    f'Scores to compute, any of {", ".join(summary.METRICS)}.',
  )

  def sizes(self) -> list[int]:
    """Returns the sizes of the beam.

    Raises:
      ValueError: one is not a number, or not valid for a search.
    """
    return self._numbers('beam_sizes', int)

  def factors(self) -> list[float]:
    """Returns the length normalizations.

    Raises:
      ValueError: one is not a number, or not valid for a search.
    """
    return self._numbers('length_normalization_factors', float)

  def check(self) -> None:
    """Checks all that can be checked before a model is loaded.

    Raises:
      ValueError: options do not go together, or a value is not valid.
    """
    if bool(self.input_file_pattern) == bool(self.captions_file):
      raise ValueError('give either --captions_file or --input_file_pattern')
    if self.captions_file and not self.image_dir:
      raise ValueError('--image_dir is required (see --help)')
    summary.check_names(self.metrics, '--metrics')
    unavailable = caption_scores.unavailable()
    for name in self.metrics:
      if name in unavailable:
        raise ValueError(
          f'--metrics={",".join(self.metrics)}: no {name}: {unavailable[name]}'
        )
    if not self.metrics:
      raise ValueError('--metrics is empty: give one or more')
    self.sizes()
    self.factors()

  def _numbers(
    self, name: str, kind: Callable[[str], _Number]
  ) -> list[_Number]:
    """Returns the numbers of an option, without repetitions."""
    texts, setting = getattr(self, name), name.removesuffix('s')
    values: list[_Number] = []
    for text in texts:
      try:
        values.append(kind(text))
        checked: dict[str, Any] = {setting: values[-1]}
        search_config.SearchConfig(**checked)
      except ValueError as error:
        raise ValueError(f'--{name}={",".join(texts)}: {error}') from error
    if not values:
      raise ValueError(f'--{name} is empty: give one number or more')
    return list(dict.fromkeys(values))
