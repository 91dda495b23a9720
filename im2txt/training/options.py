# SPDX-License-Identifier: Apache-2.0
"""The options of a training run. They are flags of `train`."""

import dataclasses

from im2txt.ops import folded_inception
from im2txt.runtime import sharing
from im2txt.runtime.flag_dataclasses import field
from im2txt.training import self_critical

_BLOCKS = folded_inception.BLOCKS
_BASELINES = self_critical.BASELINES


@dataclasses.dataclass(frozen=True)
class FeatureOptions:
  """What `train` and `build_feature_cache` must be told alike."""

  input_file_pattern: str = field(
    '',
    'File pattern of sharded TFRecord input files, e.g. '
    '"data/mscoco/train-?????-of-00256".',
  )
  inception_checkpoint_file: str = field(
    '', 'Pretrained Inception v3 checkpoint. It is read at step 0 only.'
  )
  train_inception_from: str | None = field(
    None,
    'With --train_inception: train only this block of Inception v3, such as '
    'Mixed_7b, and the blocks after it. The averages of batch norm stay as '
    'they are. The blocks learn at --train_inception_learning_rate and the '
    'decoder at --initial_learning_rate, both times the schedule. By default '
    'all of Inception v3 is trained, at one constant rate.',
    values=_BLOCKS,
  )
  feature_cache_dir: str = field(
    '',
    'Directory for the Inception features of the input files. Features that '
    'are missing are computed before the first step. Training from features '
    'is much faster. With --train_inception_from the directory holds the '
    'inputs of that block, 160 KiB per view. This flag cannot be used when '
    'all of Inception v3 is trained.',
  )
  # On photos the distortion accounts for a fifth of the variance of the
  # features. The mean of four views has a quarter of the variance of one view.
  # Each further view costs a pass of Inception over all images.
  feature_views: int = field(
    4,
    'Randomly distorted views of each image in --feature_cache_dir, in '
    'addition to the undistorted one. Each takes 8 KiB and one pass of '
    'Inception. With 0, training sees no distortion.',
    lower_bound=0,
  )
  feature_seed: int = field(
    0, 'Seed of the distortions in --feature_cache_dir.'
  )
  feature_precision: str = field(
    'float32',
    'Precision of Inception v3 when it fills --feature_cache_dir. bfloat16 '
    'takes half the time on processors that support it (AVX512 BF16, AMX). '
    'The features then have 2 or 3 correct digits.',
    values=['float32', 'bfloat16'],
  )


@dataclasses.dataclass(frozen=True)
class TrainOptions(FeatureOptions):
  """Input, output and mode of a training run. Each field is a flag.

  Hyperparameters are in `configuration`.
  """

  random_inception: bool = field(
    False,
    'Start from random weights of Inception v3 if there is no '
    '--inception_checkpoint_file. Without this flag, a frozen Inception v3 '
    'needs a checkpoint.',
  )
  train_dir: str = field('', 'Directory of checkpoints and TensorBoard events.')
  train_inception: bool = field(False, 'Whether to train Inception v3 too.')
  number_of_steps: int = field(1000000, 'Step to train up to.')
  log_every_n_steps: int = field(1, 'Steps between log lines.', lower_bound=1)
  save_interval_secs: int = field(600, 'Seconds between checkpoints.')
  save_summaries_secs: int = field(
    600, 'Seconds between histograms and images for TensorBoard.'
  )
  captions_per_image: int = field(
    1,
    'Captions per image grouped in a batch. Without --feature_cache_dir they '
    'share one pass of Inception. Must divide --batch_size. With five '
    'captions per image use 5 and --batch_size=30. Some batches are smaller '
    'if an image has a number of captions that this does not divide.',
    lower_bound=1,
  )
  feature_undistorted: bool = field(
    False, 'Also train from the undistorted view in --feature_cache_dir.'
  )
  self_critical: bool = field(
    False,
    'Self-critical training: captions are sampled and rewarded by their '
    'CIDEr against the references of the image. Start from a model that was '
    'trained without this flag. Needs --feature_cache_dir and a low '
    '--initial_learning_rate.',
  )
  samples_per_image: int = field(
    5,
    'Captions sampled per image with --self_critical. Must divide '
    '--batch_size.',
    lower_bound=1,
  )
  self_critical_baseline: str = field(
    _BASELINES[0],
    'What the reward of a sampled caption is compared with: the mean reward '
    "of the image's other samples, or the reward of its greedy caption.",
    values=_BASELINES,
  )
  max_sample_length: int = field(
    20,
    'Largest length of a sampled caption in words, including the end word.',
    lower_bound=2,
  )
  vocab_file: str = field(
    '',
    'Vocabulary of the shards, for --self_critical and --word_vectors_file. '
    'The default is word_counts.txt beside the shards.',
  )
  word_vectors_file: str = field(
    '',
    'Word embeddings to start from: a file of GloVe or of word2vec in its text '
    'format, which may be compressed by gzip. Words that are not in it start '
    'at random. It is read at step 0 only. The vectors must be of size '
    '--embedding_size.',
  )
  early_stopping_patience: int = field(
    0,
    'Stop once so many checkpoints in a row were not better. evaluate '
    '--best_metric with the same --eval_dir must run beside. 0 never stops.',
    lower_bound=0,
  )
  eval_dir: str = field(
    '', 'The --eval_dir of evaluate, for --early_stopping_patience.'
  )
  precision: str = field(
    'float32',
    'Precision of the matrix products of the LSTM and the softmax layer in '
    'training, and of the blocks of --train_inception_from with '
    '--feature_cache_dir. Weights and loss are always float32.',
    values=['float32', 'bfloat16'],
  )
  distribution: str = field(
    sharing.AUTO,
    'Devices to train on: one; mirrored, all GPUs of this machine; '
    'multi_worker, the processes that TF_CONFIG or srun describes. auto is '
    'multi_worker where TF_CONFIG names several, else mirrored with several '
    'GPUs, else one. --batch_size is that of all devices together, so their '
    'number changes nothing but the speed.',
    values=sharing.NAMES,
  )
  slurm_port: int = field(
    12321,
    'First port of the workers on a node of Slurm, with --distribution='
    'multi_worker and without TF_CONFIG.',
    lower_bound=1,
    upper_bound=65535,
  )
  random_seed: int | None = field(
    None,
    'Seed of the initial weights, the order and distortion of examples, '
    'dropout and samples. A run that resumes with its seed gives the same '
    'result as one that was never interrupted. The default is the seed saved '
    'in --train_dir, or a random one if there is none.',
    lower_bound=0,
  )

  @property
  def trains_batch_norm(self) -> bool:
    """Whether the averages of batch norm change in training."""
    return self.train_inception and not self.train_inception_from

  def check(self) -> None:
    """Raises ValueError for options that do not go together."""
    if self.feature_cache_dir and self.trains_batch_norm:
      raise ValueError(
        '--feature_cache_dir needs a frozen Inception v3: leave '
        'out --train_inception, or train its top blocks alone '
        'by --train_inception_from'
      )
    if self.train_inception_from and not self.train_inception:
      raise ValueError(
        f'--train_inception_from={self.train_inception_from} needs '
        '--train_inception'
      )
    if self.early_stopping_patience and not self.eval_dir:
      raise ValueError(
        '--early_stopping_patience needs --eval_dir: give that of '
        'evaluate --best_metric'
      )
    if self.self_critical and self.train_inception_from:
      raise ValueError(
        '--self_critical needs a frozen Inception v3: leave out '
        '--train_inception and --train_inception_from'
      )
    if self.self_critical and not self.feature_cache_dir:
      raise ValueError(
        '--self_critical needs --feature_cache_dir: give it a '
        'directory for the features of --input_file_pattern'
      )
    if (
      self.self_critical
      and self.samples_per_image == 1
      and self.self_critical_baseline == self_critical.MEAN
    ):
      raise ValueError(
        '--samples_per_image=1 has no other sample to be compared with: give '
        '2 or more, or --self_critical_baseline=greedy'
      )
    if self.feature_undistorted and not self.feature_cache_dir:
      raise ValueError(
        '--feature_undistorted needs --feature_cache_dir: '
        'images that are not cached are always distorted'
      )
    if self.self_critical and self.captions_per_image > 1:
      raise ValueError(
        f'--captions_per_image={self.captions_per_image} has no effect with '
        '--self_critical: give --samples_per_image'
      )
