# SPDX-License-Identifier: Apache-2.0
"""The options of score, which are its flags."""

import dataclasses
import re

from im2txt.data import coco_server
from im2txt.inference_utils import model_flags
from im2txt.metrics import resampling
from im2txt.runtime import files
from im2txt.runtime import sharing
from im2txt.runtime.flag_dataclasses import field


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
  """Which captions to score, against what, and where the results go.

  Each field is a flag of that name.
  """

  annotations_file: str = field(
    '',
    'COCO captions JSON file to score against; without it, the captions in '
    "--input_file_pattern. Its images need no file names. Karpathy's JSON, "
    'and CSV or JSONL with image_id and caption, are taken too.',
  )
  results_file: str = field(
    '',
    'COCO results JSON files to score, separated by commas: [{"image_id": '
    '42, "caption": "a man"}, ...], or such an object per line.',
  )
  allow_missing_results: bool = field(
    False,
    'Score --results_file though it has no caption of some images: these are '
    'left out of its scores.',
  )
  checkpoint_path: str = field(
    '',
    'Model checkpoint to score in the place of results: a file prefix, or a '
    'directory (its latest is taken). Several, separated by commas, are '
    'scored as an ensemble.',
  )
  vocab_file: str = field('', 'Vocabulary the model was trained with.')
  precision: str = field(
    'float32', model_flags.PRECISION_TEXT, model_flags.PRECISIONS
  )
  distribution: str = field(
    sharing.AUTO, sharing.LOCAL_TEXT, sharing.LOCAL_NAMES
  )
  input_file_pattern: str = field(
    '', 'File pattern of sharded TFRecord files whose images are captioned.'
  )
  train_file_pattern: str = field(
    '',
    'File pattern of the shards the model was trained on: adds the shares of '
    'captions that are copied from them.',
  )
  share: str = field(
    '',
    'Caption only a share of the images, INDEX/COUNT such as 0/4, and write '
    '--results_output. So several processes or machines share the work, and '
    '--join_results scores all of it.',
  )
  join_results: bool = field(
    False,
    'The --results_file are shares of one run: score them together.',
  )
  max_images: int = field(
    0, 'Score only so many images of the shards; 0: all.', lower_bound=0
  )
  inference_batch_size: int = field(
    8, 'Images captioned at once.', lower_bound=1
  )
  ranking: bool = field(
    False,
    'Also find captions by image and images by caption, by the likelihood '
    'that the checkpoint gives them. The cost grows with images times '
    'captions.',
  )
  ranking_images: int = field(
    1000, 'Images that --ranking takes, the first ones.', lower_bound=1
  )
  ranking_captions_per_image: int = field(
    1,
    'Captions of each image that --ranking takes. Papers take 5.',
    lower_bound=1,
  )
  output_json: str = field('', 'File for the scores.')
  compare_with: str = field(
    '',
    'COCO results JSON file to compare each run with: prints the difference '
    'of each score, its interval, and the p value.',
  )
  resamples: int = field(
    resampling.RESAMPLES,
    'Sets of images drawn for the intervals, and ways to swap captions for '
    'the p value; 0: none.',
    lower_bound=0,
  )
  resampling_seed: int = field(
    resampling.SEED,
    'Which sets of images are drawn.',
    lower_bound=0,
    upper_bound=2**32 - 1,
  )
  image_scores_output: str = field(
    '',
    'File for the caption and scores of each image: CSV if its name ends in '
    '.csv, else JSON.',
  )
  report_json: str = field(
    '', 'File for scores, intervals, signatures and comparisons.'
  )
  server_zip: str = field(
    '',
    "File for COCO's evaluation server: the captions of val2014, which are "
    'those of --results_file or --checkpoint_path, and --test2014_results. '
    'With --results_file, references are not needed.',
  )
  test2014_results: str = field(
    '', 'COCO results JSON file of test2014, for --server_zip.'
  )
  server_name: str = field(
    'im2txt', 'Name in the file names within --server_zip.'
  )
  results_output: str = field(
    '',
    'File for the captions of --checkpoint_path, in the JSON format that '
    "COCO's evaluation server takes.",
  )

  def share_of_images(self) -> sharing.Share:
    """The share that --share names.

    Raises:
      ValueError: it names none.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', self.share or '0/1')
    share = sharing.Share(*map(int, match.groups() if match else (0, 0)))
    if share.index >= share.count:
      raise ValueError(
        f'--share={self.share} must be INDEX/COUNT, from 0/4 to 3/4 for four '
        'shares'
      )
    return share

  @property
  def has_references(self) -> bool:
    """Whether there are references to score against."""
    return bool(self.annotations_file or self.input_file_pattern)

  @property
  def results_files(self) -> list[str]:
    return files.split_names(self.results_file)

  def check(self) -> None:
    """Raises ValueError for options that do not go together."""
    if bool(self.results_file) == bool(self.checkpoint_path):
      raise ValueError('give either --results_file or --checkpoint_path')
    if self.checkpoint_path:
      for name in ('vocab_file', 'input_file_pattern'):
        if not getattr(self, name):
          raise ValueError(f'--checkpoint_path needs --{name}')
    elif not self.has_references and not self.server_zip:
      raise ValueError(
        'give --annotations_file, the references to score --results_file '
        'against'
      )
    if self.results_file and (self.ranking or self.results_output):
      raise ValueError('--ranking and --results_output need --checkpoint_path')
    if self.share:
      self.share_of_images()
      if not self.results_output:
        raise ValueError(
          f'--share={self.share} needs --checkpoint_path and --results_output, '
          'which --join_results takes'
        )
    if self.join_results and not self.results_file:
      raise ValueError('--join_results needs --results_file')
    self._check_server_zip()
    self._check_comparison()

  def _check_server_zip(self) -> None:
    if not self.server_zip:
      if self.test2014_results:
        raise ValueError('--test2014_results needs --server_zip')
      return
    if not self.test2014_results:
      raise ValueError(
        f'--server_zip={self.server_zip} needs --test2014_results, the '
        'captions of test2014'
      )
    coco_server.check_name(self.server_name, '--server_name')
    if len(self.results_files) > 1 and not self.join_results:
      raise ValueError(
        f'--results_file={self.results_file} must be one file for '
        '--server_zip, that of val2014'
      )

  def _check_comparison(self) -> None:
    if not self.compare_with:
      return
    if not self.resamples:
      raise ValueError('--compare_with needs --resamples above 0')
    if self.compare_with in self.results_files:
      raise ValueError(
        f'--compare_with={self.compare_with} is one of --results_file: give '
        'another file'
      )
    if not self.checkpoint_path and not self.has_references:
      raise ValueError(
        '--compare_with needs --annotations_file, the references to score '
        'against'
      )
