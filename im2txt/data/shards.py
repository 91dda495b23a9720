# SPDX-License-Identifier: Apache-2.0
"""Reads records of image and caption back from TFRecord shards."""

from typing import NamedTuple


class Record(NamedTuple):
  """One picture and one caption of it, as `mscoco.serialize` writes them.

  Attributes:
    image_id: int.
    data: bytes, the JPEG file.
    tokens: list of str, start and end word included.
    ids: list of int, the ids of the tokens.
  """
  image_id: int
  data: bytes
  tokens: list
  ids: list


def read(path):
  """Yields the Records of one shard, in order.

  Args:
    path: str.

  Raises:
    ValueError: the file is damaged or of another kind, or cannot be read.
  """
  import tensorflow as tf  # pylint: disable=g-import-not-at-top
  count = 0
  try:
    for serialized in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield parse(serialized)
      count += 1
  except (tf.errors.OpError, ValueError) as error:
    reason = getattr(error, 'message', str(error)).split('\n', maxsplit=1)[0]
    raise ValueError(
        f'{path} is damaged or no shard, after {count} good records '
        f'({reason}): make the shards again') from error


def parse(serialized):
  """Returns the Record in the bytes of a SequenceExample.

  Raises:
    ValueError: the bytes are no such example, or lack a feature.
  """
  from tensorflow import train  # pylint: disable=g-import-not-at-top
  try:
    example = train.SequenceExample.FromString(serialized)
  except Exception as error:  # protobuf's class depends on its build.
    raise ValueError('a record is no SequenceExample') from error
  context = example.context.feature
  lists = example.feature_lists.feature_list
  image_id = context['image/image_id'].int64_list.value
  data = context['image/data'].bytes_list.value
  if len(image_id) != 1 or len(data) != 1:
    raise ValueError('a record lacks image/image_id or image/data')
  try:
    return Record(
        image_id[0], data[0],
        [f.bytes_list.value[0].decode('utf-8')
         for f in lists['image/caption'].feature],
        [f.int64_list.value[0] for f in lists['image/caption_ids'].feature])
  except (IndexError, UnicodeDecodeError) as error:
    raise ValueError('a caption has a word without text or id') from error


def captions_by_image(files, max_images=0, vocab=None):
  """Returns {image id: (captions, their ids)} of shards, in order.

  Args:
    files: shard file names.
    max_images: leave out the images after so many, if not 0.
    vocab: the `Vocabulary` whose ids they should be, None for any.

  Raises:
    ValueError: a shard is damaged, or its ids are of another vocabulary.
  """
  examples = {}
  for path in files:
    for record in read(path):
      if record.image_id not in examples:
        if max_images and len(examples) >= max_images:
          continue
        examples[record.image_id] = ([], [])
      if vocab and record.ids != [vocab.word_to_id(w) for w in record.tokens]:
        raise ValueError(
            f'{path}: the word ids are not those of the vocabulary file: give '
            'the one that was made with the shards, and a model that was '
            'trained with it')
      captions, ids = examples[record.image_id]
      captions.append(' '.join(record.tokens[1:-1]))
      if len(record.ids) > 1:
        ids.append(record.ids)
  return examples


def image_batches(files, wanted, batch_size):
  """Yields lists of (image id, JPEG bytes) of each wanted image, once."""
  left, batch = set(wanted), []
  for path in files:
    for record in read(path):
      if record.image_id in left:
        left.remove(record.image_id)
        batch.append((record.image_id, record.data))
        if len(batch) == batch_size or not left:
          yield batch
          batch = []
    if not left:
      return
