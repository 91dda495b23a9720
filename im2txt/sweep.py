# SPDX-License-Identifier: Apache-2.0
r"""Scores captions for several sizes of the beam and length normalizations.

  sweep --checkpoint_path=train_dir --vocab_file=word_counts.txt \
      --captions_file=captions.json --image_dir=images --output_dir=sweep

Each image is encoded once. The scores are printed, and drawn in sweep.png. Each
score is saved in sweep.json at once, so the same command resumes an interrupted
run.
"""

from collections.abc import Sequence
import os

from absl import flags

from im2txt.data import shards
from im2txt.evaluation import beam_sweep
from im2txt.evaluation import scoring
from im2txt.evaluation import sweep_options
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config
from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.text import vocabulary_stamp

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(sweep_options.SweepOptions)
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


def main(_: Sequence[str]) -> None:
  program.require(FLAGS, 'checkpoint_path', 'vocab_file', 'output_dir')
  options = flag_dataclasses.from_flags(FLAGS, sweep_options.SweepOptions)
  options.check()
  search = search_config.from_flags(FLAGS)
  captioner = captioner_lib.Captioner(
    options.checkpoint_path, options.vocab_file, search, options.precision
  )
  stamps = [vocabulary_stamp.of_checkpoint(p) for p in captioner.prefixes]
  if options.captions_file:
    images = beam_sweep.Images.of_captions_file(
      options.captions_file,
      options.image_dir,
      options.split,
      options.max_images,
    )
  else:
    paths = shards.list_files(options.input_file_pattern)
    images = beam_sweep.Images.of_shards(
      paths, options.max_images, captioner.vocab
    )
    stamps += vocabulary_stamp.of_shards(paths)
  points = beam_sweep.Sweep(
    options.output_dir,
    captioner,
    images,
    search,
    options.metrics,
    scoring.split_of(vocabulary_stamp.first_known(stamps)),
    options.feature_dir,
    options.keep_captions,
  ).run(options.sizes(), options.factors())
  print(beam_sweep.tables(points, options.metrics))
  path = os.path.join(options.output_dir, beam_sweep.PLOT_FILE)
  files.write_figure(path, beam_sweep.draw(points, options.metrics))
  print(f'Wrote {path}')


if __name__ == '__main__':
  program.run(main, define_flags)
