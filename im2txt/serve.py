# SPDX-License-Identifier: Apache-2.0
"""Serves captions over HTTP.

  serve [--checkpoint_path=DIR_OR_PREFIX[,...]] [--port=8080] [FLAG...]

Without --checkpoint_path the model that get_model puts together is taken.
Requests of all clients are captioned in common batches. See docs/serving.md for
the endpoints; a browser shows a page at the server's address.
"""

from collections.abc import Sequence
import dataclasses

from absl import flags
from absl import logging

from im2txt.inference_utils import library
from im2txt.inference_utils import model_flags
from im2txt.inference_utils import search_config
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program
from im2txt.serving import app
from im2txt.serving import options as options_lib
from im2txt.serving import process

FLAGS = flags.FLAGS


def define_flags() -> None:
  model_flags.define_flags(takes_several=True, has_default=True)
  flags.DEFINE_string(
    'host',
    '127.0.0.1',
    'Address to serve at. The default is reached from this machine only; '
    '0.0.0.0 from everywhere.',
  )
  flags.DEFINE_integer(
    'port',
    8080,
    'Port to serve at; 0: one that is free.',
    lower_bound=0,
    upper_bound=65535,
  )
  flags.DEFINE_bool(
    'exif_orientation', True, 'Turn images as their EXIF data say.'
  )
  search_config.define_flags()
  model_flags.define_precision()
  model_flags.define_min_confidence()
  flag_dataclasses.define_flags(options_lib.Options)


def main(argv: Sequence[str]) -> int:
  del argv
  options = flag_dataclasses.from_flags(FLAGS, options_lib.Options)
  search = search_config.from_flags(FLAGS)
  # First: it takes no time, and loading takes some.
  bound = process.bind(FLAGS.host, FLAGS.port)
  captioner = library.Captioner.load(
    FLAGS.checkpoint_path or None,
    vocab_file=FLAGS.vocab_file or None,
    precision=FLAGS.precision,
    exif_orientation=FLAGS.exif_orientation,
    **dataclasses.asdict(search),
  )
  captioner.model.check_min_confidence(FLAGS.min_confidence)
  logging.info(
    'serving the checkpoint of step %d at %s',
    captioner.global_step,
    process.address_of(bound),
  )
  server = app.Server(captioner, options, FLAGS.min_confidence)
  process.serve(server.app, bound, options.request_seconds)
  return 0


if __name__ == '__main__':
  program.run(main, define_flags)
