# SPDX-License-Identifier: Apache-2.0
r"""Scores captions for several sizes of the beam and length normalizations.

  sweep --checkpoint_path=train_dir --vocab_file=word_counts.txt \
      --captions_file=captions.json --image_dir=images --output_dir=sweep

Each image is encoded once. The scores are printed, and drawn in sweep.png. Each
score is saved in sweep.json at once, so the same command resumes an interrupted
run.
"""

from collections.abc import Callable
from collections.abc import Sequence
import os
from typing import Any
from typing import TypeVar

from absl import flags

from im2txt.data import caption_files
from im2txt.data import shards
from im2txt.evaluation import beam_sweep
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime import files
from im2txt.runtime import program
from im2txt.text import tokenizer
from im2txt.text import vocabulary_stamp

FLAGS = flags.FLAGS

_Number = TypeVar('_Number', int, float)


def define_flags() -> None:
  flags.DEFINE_string(
    'checkpoint_path',
    '',
    'Model checkpoint: a file prefix, or a directory (its latest is taken). '
    'Several, separated by commas, caption as an ensemble.',
  )
  flags.DEFINE_string(
    'vocab_file', '', 'Vocabulary the model was trained with.'
  )
  flags.DEFINE_string(
    'captions_file',
    '',
    'References, in any format that build_caption_data reads.',
  )
  flags.DEFINE_string(
    'image_dir',
    '',
    'Directory of the images of --captions_file, or a .zip file of it.',
  )
  flags.DEFINE_enum(
    'split',
    '',
    ['', *caption_files.SPLITS],
    'Take only the images of this split of --captions_file.',
  )
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of sharded TFRecord files, instead of --captions_file and '
    '--image_dir.',
  )
  flags.DEFINE_string(
    'output_dir',
    '',
    'Directory for sweep.json and sweep.png.',
  )
  flags.DEFINE_string(
    'feature_dir',
    '',
    'Directory for the features of the images, 8 KB each per encoder. Sweeps of '
    'other checkpoints on the same images can share it. The default is '
    '--output_dir.',
  )
  flags.DEFINE_bool(
    'keep_captions',
    False,
    'Whether to write the captions of each point, as many as the beam is large, '
    'to captions-BEAM-FACTOR.json in --output_dir.',
  )
  flags.DEFINE_list(
    'beam_sizes', [str(n) for n in range(1, 21)], 'Sizes of the beam.'
  )
  flags.DEFINE_list(
    'length_normalization_factors',
    ['0', '0.3', '0.7', '1'],
    'Length normalizations to try with each size of the beam.',
  )
  flags.DEFINE_list(
    'metrics',
    ['bleu_4', 'cider', 'mean_length', 'distinct_captions'],
    f'Scores to compute, any of {", ".join(summary.METRICS)}.',
  )
  flags.DEFINE_integer(
    'max_images', 0, 'Number of images to take; 0 for all.', lower_bound=0
  )
  model_flags.define_precision()
  search_config.define_flags(
    without=(
      'beam_size',
      'length_normalization_factor',
      'sample',
      'temperature',
      'top_k',
      'top_p',
      'sampling_seed',
      'beam_groups',
      'beam_group_penalty',
    )
  )


def numbers(name: str, kind: Callable[[str], _Number]) -> list[_Number]:
  """Returns the values of a flag, without repetitions.

  Args:
    name: of the flag.
    kind: int or float.

  Raises:
    ValueError: a value is not a number, or not valid for a search.
  """
  setting = name.removesuffix('s')
  values: list[_Number] = []
  for text in getattr(FLAGS, name):
    try:
      values.append(kind(text))
      checked: dict[str, Any] = {setting: values[-1]}
      search_config.SearchConfig(**checked)
    except ValueError as error:
      raise ValueError(
        f'--{name}={",".join(getattr(FLAGS, name))}: {error}'
      ) from error
  if not values:
    raise ValueError(f'--{name} is empty: give one number or more')
  return list(dict.fromkeys(values))


def check_metrics() -> None:
  """Raises ValueError if one of --metrics cannot be computed."""
  summary.check_names(FLAGS.metrics, '--metrics')
  unavailable = caption_scores.unavailable()
  for name in FLAGS.metrics:
    if name in unavailable:
      raise ValueError(
        f'--metrics={",".join(FLAGS.metrics)}: no {name}: {unavailable[name]}'
      )
  if not FLAGS.metrics:
    raise ValueError('--metrics is empty: give one or more')


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path', 'vocab_file', 'output_dir')
  if bool(FLAGS.input_file_pattern) == bool(FLAGS.captions_file):
    raise ValueError('give either --captions_file or --input_file_pattern')
  if FLAGS.captions_file:
    program.require(FLAGS, 'image_dir')
  check_metrics()
  beam_sizes = numbers('beam_sizes', int)
  factors = numbers('length_normalization_factors', float)
  search = search_config.from_flags(FLAGS)
  captioner = captioner_lib.Captioner(
    FLAGS.checkpoint_path, FLAGS.vocab_file, search, FLAGS.precision
  )
  stamps = [vocabulary_stamp.of_checkpoint(p) for p in captioner.prefixes]
  if FLAGS.captions_file:
    images = beam_sweep.Images.of_captions_file(
      FLAGS.captions_file, FLAGS.image_dir, FLAGS.split, FLAGS.max_images
    )
  else:
    paths = shards.list_files(FLAGS.input_file_pattern)
    images = beam_sweep.Images.of_shards(
      paths, FLAGS.max_images, captioner.vocab
    )
    stamps += vocabulary_stamp.of_shards(paths)
  split = (
    tokenizer.for_scores(vocabulary_stamp.first_known(stamps))
    or caption_scores.tokenize
  )
  points = beam_sweep.Sweep(
    FLAGS.output_dir,
    captioner,
    images,
    search,
    FLAGS.metrics,
    split,
    FLAGS.feature_dir,
    FLAGS.keep_captions,
  ).run(beam_sizes, factors)
  print(beam_sweep.tables(points, FLAGS.metrics))
  path = os.path.join(FLAGS.output_dir, beam_sweep.PLOT_FILE)
  with files.replacing(path) as temporary:
    beam_sweep.draw(points, FLAGS.metrics).savefig(
      temporary, format='png', dpi=100
    )
  print(f'Wrote {path}')


if __name__ == '__main__':
  program.run(main, define_flags)
