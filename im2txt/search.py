# SPDX-License-Identifier: Apache-2.0
"""Finds photos by a text or by an image, with a trained model.

  search --index_file=FILE [FLAG...] [PHOTO_OR_DIRECTORY...]

The photos named, and those below the directories named, are indexed first, if
they are new or changed; those that are no more leave the index. Then --text and
--image, which can be given more than once, are searched for in the index.
Without --checkpoint_path the model that get_model puts together is taken.
"""

from collections.abc import Sequence
import json
import warnings

from absl import flags
from absl import logging

from im2txt.folders import photo_index
from im2txt.folders import queries
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.inference_utils import library
from im2txt.inference_utils import model_flags
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  model_flags.define_flags(takes_several=True, has_default=True)
  flags.DEFINE_string(
    'index_file', '', 'The index: a file, which is made if there is none.'
  )
  flags.DEFINE_multi_string(
    'text', [], 'Text to search for, such as "a dog on the beach".'
  )
  flags.DEFINE_multi_string('image', [], 'Image to search for others like it.')
  flags.DEFINE_integer(
    'count', 10, 'Photos to find per text or image.', lower_bound=1
  )
  flags.DEFINE_enum(
    'output_format',
    'text',
    ['text', 'json'],
    'text: score, tab and path per line; or json, an object per line: '
    '{"query", "path", "score"}.',
  )
  flags.DEFINE_bool(
    'exif_orientation', True, 'Turn photos upright by their EXIF data.'
  )
  flags.DEFINE_integer(
    'inference_batch_size', 16, 'Photos encoded at once.', lower_bound=1
  )
  model_flags.define_precision()


def update(
  index: photo_index.PhotoIndex,
  names: Sequence[str],
  captioner: captioner_lib.Captioner,
) -> int:
  """Brings the index up to date; returns the exit status."""
  result = index.update(
    names, captioner, FLAGS.inference_batch_size, FLAGS.exif_orientation
  )
  for name, reason in result.failures.items():
    image_files.tell_skipped(name, reason)
  logging.info(
    '%s: %d photo(s): %d new or changed, %d removed, %d skipped',
    FLAGS.index_file,
    len(index),
    result.added,
    result.removed,
    len(result.failures),
  )
  return 1 if result.failures else 0


def search(index: photo_index.PhotoIndex, captioner: library.Captioner) -> None:
  """Prints what --text and --image find."""
  asked = [*FLAGS.text, *FLAGS.image]
  found = queries.find(index, captioner, FLAGS.text, FLAGS.image, FLAGS.count)
  for query, hits in zip(asked, found):
    if len(asked) > 1 and FLAGS.output_format == 'text':
      print(f'{query}:')
    for hit in hits:
      if FLAGS.output_format == 'json':
        told = {'query': query, **hit.as_dict()}
        print(json.dumps(told, ensure_ascii=False))
      else:
        print(f'{hit.score:.3f}\t{hit.path}')


def main(argv: Sequence[str]) -> int:
  program.require(FLAGS, 'index_file')
  program.require_output_directories(FLAGS, 'index_file')
  if not (argv[1:] or FLAGS.text or FLAGS.image):
    raise ValueError(
      'name photos or directories to index, or give --text or --image to '
      'search for (see --help)'
    )
  program.write_any_name(as_json=FLAGS.output_format == 'json')
  warnings.filterwarnings('ignore', module=r'PIL\.')
  if not argv[1:]:
    photo_index.check_exists(FLAGS.index_file)  # Before the model is loaded.
  captioner = library.Captioner.load(
    FLAGS.checkpoint_path or None,
    vocab_file=FLAGS.vocab_file or None,
    precision=FLAGS.precision,
    exif_orientation=FLAGS.exif_orientation,
  )
  encoder = captioner_lib.digest(
    captioner.model.encoder_fingerprint, FLAGS.exif_orientation
  )
  status = 0
  with photo_index.PhotoIndex(
    FLAGS.index_file, encoder, create=bool(argv[1:])
  ) as index:
    if argv[1:]:
      status = program.run_resumable(
        lambda: update(index, argv[1:], captioner.model)
      )
    search(index, captioner)
  return status


if __name__ == '__main__':
  program.run(main, define_flags, takes_argument=True)
