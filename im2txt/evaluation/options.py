# SPDX-License-Identifier: Apache-2.0
"""The options of evaluate, which are its flags."""

import dataclasses

from absl import logging

from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime import sharing
from im2txt.runtime.flag_dataclasses import field

PERPLEXITY = 'perplexity'


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
  """What to evaluate, on what, and where the results go.

  Each field is a flag of that name.
  """

  input_file_pattern: str = field(
    '',
    'File pattern of sharded TFRecord input files, e.g. '
    '"data/mscoco/val-?????-of-00004".',
  )
  checkpoint_dir: str = field(
    '', 'Train directory to watch (or one checkpoint, with --run_once).'
  )
  eval_dir: str = field('', 'Directory for TensorBoard events.')
  eval_interval_secs: int = field(
    600, 'Seconds between looks for a new checkpoint.', lower_bound=0
  )
  num_eval_examples: int = field(
    10132,
    'Captions to evaluate; all captions if there are fewer.',
    lower_bound=1,
  )
  min_global_step: int = field(
    5000, 'Checkpoints of earlier steps are passed over.'
  )
  run_once: bool = field(False, 'Evaluate the latest checkpoint and stop.')
  number_of_steps: int = field(
    0,
    'Stop after evaluating a checkpoint of this step or later (what train '
    'was told); 0: watch until interrupted.',
  )
  feature_cache_dir: str = field(
    '',
    'Directory for the Inception features of these input files, as of '
    'train: made if they are not there. All checkpoints must have the same '
    'Inception weights.',
  )
  eval_batch_size: int = field(
    0,
    'Captions scored at once; 0: the batch_size of the training.',
    lower_bound=0,
  )
  distribution: str = field(
    sharing.AUTO, sharing.LOCAL_TEXT, sharing.LOCAL_NAMES
  )
  metrics: tuple[str, ...] = field(
    (),
    'Also caption the images and score the captions against those in the '
    f'shards: any of {", ".join(summary.METRICS)}, or all.',
  )
  metrics_images: int = field(
    1000,
    'Images captioned for --metrics: the first of the images that '
    'perplexity is computed on; 0: all of them.',
    lower_bound=0,
  )
  train_file_pattern: str = field(
    '',
    'File pattern of the shards the model is trained on: adds to --metrics '
    'the shares of captions that are copied from them.',
  )
  ranking_images: int = field(
    0,
    'Also score image-caption retrieval on this many images, using the first '
    'caption of each. Needs --metrics. The cost is quadratic: minutes for '
    '1,000. 0: none.',
    lower_bound=0,
  )
  vocab_file: str = field(
    '',
    'Vocabulary of the shards and the model, for --metrics; word_counts.txt '
    'beside the shards if not given.',
  )
  best_metric: str = field(
    '',
    'Keep the checkpoint with the best value of this in eval_dir/best: '
    'perplexity (the lowest), or one of --metrics except the measures of '
    'diversity. Empty: keep none.',
  )
  early_stopping_patience: int = field(
    0,
    'Stop after this many checkpoints in a row without a better '
    '--best_metric. train has the same flag. 0 never stops.',
    lower_bound=0,
  )

  def check(self) -> None:
    """Raises ValueError for options that do not go together."""
    if self.early_stopping_patience and not self.best_metric:
      raise ValueError('--early_stopping_patience needs --best_metric')
    if 0 < self.number_of_steps < self.min_global_step and not self.run_once:
      raise ValueError(
        f'--number_of_steps={self.number_of_steps} is below '
        f'--min_global_step={self.min_global_step}, so its checkpoint would '
        'be passed over; lower --min_global_step'
      )
    asked = self._metrics_asked_for()
    summary.check_names(asked, '--metrics', (*summary.METRICS, 'all'))
    for name in ('train_file_pattern', 'ranking_images'):
      if getattr(self, name) and not asked:
        raise ValueError(f'--{name} needs --metrics')
    if self.best_metric in ('', PERPLEXITY):
      return
    if self.best_metric not in caption_scores.METRICS:
      raise ValueError(
        f'--best_metric={self.best_metric} is none of {PERPLEXITY}, '
        + ', '.join(caption_scores.METRICS)
      )
    if self.best_metric not in asked:
      raise ValueError(
        f'--best_metric={self.best_metric} is not in '
        f'--metrics={",".join(self.metrics)}; add it'
      )
    reason = caption_scores.unavailable().get(self.best_metric)
    if reason:
      raise ValueError(f'--best_metric={self.best_metric}: {reason}')

  def _metrics_asked_for(self) -> list[str]:
    return list(summary.METRICS if 'all' in self.metrics else self.metrics)

  def available_metrics(self) -> list[str]:
    """Returns those of `metrics` that this machine can compute.

    Logs one line per unavailable metric.
    """
    asked = self._metrics_asked_for()
    if asked:
      for line in caption_scores.shortcomings(asked):
        logging.info('%s', line)
    unavailable = caption_scores.unavailable()
    return [name for name in asked if name not in unavailable]
