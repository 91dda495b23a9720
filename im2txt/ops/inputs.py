# SPDX-License-Identifier: Apache-2.0
"""Captions and images of TFRecord shards of SequenceExamples, and batches."""

import array
import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt import files as files_lib
from im2txt import progress
from im2txt import quiet_tensorflow
from im2txt.data import shards
from im2txt.ops import example_order
from im2txt.ops import image_processing

IMAGE_ID = 'image/image_id'
IMAGE_DATA = 'image/data'
CAPTION_IDS = 'image/caption_ids'

# Per shard on average: then an empty one has lost its records. Fewer records
# than shards leave some empty, as in 2016; with hardly more, images that cannot
# be decoded do.
_MANY_RECORDS = 5

# wc -l would miss a last line without an end, as vocabulary files have it.
_VOCAB_SIZE = ('the number of words of the vocabulary file, and 1 for <UNK> if '
               'that is not among them')


class Batch(NamedTuple):
  """Captions of a step, and what the encoder's part of the step begins with.

  Attributes:
    inputs: float32 [images, height, width, 3] in [-1, 1]; or float32 [images,
      2048], the features of images; or float32 [images, rows, columns,
      channels], the inputs of a block of Inception.
    rows: int64 [batch], which of `inputs` each caption is of.
    input_seqs: int64 [batch, time], <S> w1 ... wn, padded with zeros.
    target_seqs: int64 [batch, time], w1 ... wn </S>, padded.
    mask: int32 [batch, time], 1 where there is a word, else 0.
  """
  inputs: np.ndarray
  rows: np.ndarray
  input_seqs: np.ndarray
  target_seqs: np.ndarray
  mask: np.ndarray


def list_files(file_pattern, flag='input_file_pattern'):
  """Returns the sorted files that comma-separated patterns match.

  Sorted, so that a run does not depend on the file system's order.

  Args:
    file_pattern: see `files.split_names` and `files.matches`.
    flag: the flag that gave it, for messages.

  Raises:
    ValueError: a pattern matches nothing.
  """
  files = []
  for pattern in files_lib.split_names(file_pattern) or ['']:
    found = files_lib.matches(pattern)
    if not found:
      raise ValueError(f'--{flag}={file_pattern}: no file matches {pattern}')
    files.extend(found)
  missing = shards.missing_of_sets(files)
  if missing:
    logging.warning('--%s=%s: %d shards are missing, such as %s', flag,
                    file_pattern, len(missing), missing[0])
  return sorted(set(files))


def parse_sequence_example(serialized):
  """Parses one record: an image and its caption, or several captions.

  A record of one caption has a feature for each word, one of several (of the
  compact layout) a feature for each caption with all of its words.

  Args:
    serialized: string scalar, a `tf.train.SequenceExample`.

  Returns:
    (image_id int64 scalar, encoded image string scalar, words int64 [n], the
    ids of all captions, with <S> and </S>, lengths int64 [num_captions]).
  """
  context, sequence = tf.io.parse_single_sequence_example(
      serialized,
      context_features={
          IMAGE_ID: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
          IMAGE_DATA: tf.io.FixedLenFeature([], tf.string),
      },
      sequence_features={
          CAPTION_IDS: tf.io.RaggedFeature(
              tf.int64, row_splits_dtype=tf.int64),
      })
  words = sequence[CAPTION_IDS].flat_values
  lengths = sequence[CAPTION_IDS].row_lengths()
  lengths = tf.cond(tf.reduce_any(lengths > 1), lambda: lengths,
                    lambda: tf.size(words, tf.int64)[tf.newaxis])
  return context[IMAGE_ID], context[IMAGE_DATA], words, lengths


@dataclasses.dataclass
class Captions:
  """The captions of some shards, in the order of their records.

  Attributes:
    image_ids: int64 [num_images], of the distinct images in order first seen.
    images: int32 [num_captions], the index into `image_ids` of each caption.
    words: int32 [num_words], ids of all captions, with <S> and </S>.
    ends: int64 [num_captions], where each caption ends in `words`.
    file_ends: int64 [num_files], captions up to the end of each shard.
    offsets: int64 [num_captions], where in its shard the record of each caption
      begins; None if not known.
  """
  image_ids: np.ndarray
  images: np.ndarray
  words: np.ndarray
  ends: np.ndarray
  file_ends: np.ndarray
  offsets: np.ndarray = None

  def __len__(self):
    return len(self.ends)

  def caption(self, index):
    """Returns int32 [n], the word ids of a caption."""
    return self.words[self.ends[index - 1] if index else 0:self.ends[index]]

  def check_ids(self, vocab_size):
    """Raises ValueError unless every word id is from 0 to `vocab_size` - 1."""
    wrong = np.flatnonzero((self.words >= vocab_size) | (self.words < 0))
    if len(wrong):
      caption = np.searchsorted(self.ends, wrong[0], side='right')
      if self.words[wrong[0]] < 0:
        raise ValueError(
            f'image {self.image_ids[self.images[caption]]}: its caption holds '
            f'the negative word id {self.words[wrong[0]]}; make the shards '
            'again')
      raise ValueError(
          f'image {self.image_ids[self.images[caption]]}: its caption holds '
          f'word id {self.words[wrong[0]]}, not below the model\'s vocabulary '
          f'size {vocab_size}; give train --vocab_size={self.words.max() + 1} '
          f'or more: {_VOCAB_SIZE}')

  def groups(self, size, usable=None):
    """Groups the captions of each image, `size` or fewer in a group.

    Args:
      size: int.
      usable: int [n], the captions to take, ascending; None: all.

    Returns:
      `Groups`, in the order of the first caption of each.
    """
    if usable is None:
      usable = np.arange(len(self))
    order = usable[np.argsort(self.images[usable], kind='stable')]
    images = self.images[order]
    place = np.arange(len(order)) - np.searchsorted(images, images)
    starts = np.flatnonzero(place % size == 0)
    ends = np.append(starts[1:], len(order))
    by_place = np.argsort(order[starts])
    return Groups(order, starts[by_place], ends[by_place])

  def sequences(self, indices):
    """Returns what the LSTM reads and what it should predict.

    Args:
      indices: int [batch], of captions.

    Returns:
      (input_seqs int64 [batch, time], target_seqs int64, mask int32): all but
      the last word, all but the first, and ones; padded with zeros to the
      longest caption.
    """
    captions = [self.caption(i) for i in indices]
    time = max(max(len(c) for c in captions) - 1, 1)
    inputs = np.zeros([len(captions), time], np.int64)
    targets = np.zeros_like(inputs)
    mask = np.zeros_like(inputs, dtype=np.int32)
    for i, caption in enumerate(captions):
      n = max(len(caption) - 1, 0)
      inputs[i, :n] = caption[:-1]
      targets[i, :n] = caption[1:]
      mask[i, :n] = 1
    return inputs, targets, mask


@dataclasses.dataclass
class Groups:
  """Groups of captions of one image each; a sequence of int arrays.

  Attributes:
    order: int [num_captions], the captions, those of a group together.
    starts: int [num_groups], where in `order` each group starts.
    ends: int [num_groups], where it ends.
  """
  order: np.ndarray
  starts: np.ndarray
  ends: np.ndarray

  def __len__(self):
    return len(self.starts)

  def __getitem__(self, group):
    return self.order[self.starts[group]:self.ends[group]]

  @property
  def first_captions(self):
    """int [num_groups], the first caption of each."""
    return self.order[self.starts]


def read_captions(files, limit=None):
  """Reads the captions of shards, and which of them share an image.

  Images are told apart by their id, or where a record has none by their bytes.

  Args:
    files: shard file names.
    limit: read at most so many captions.

  Returns:
    `Captions`.

  Raises:
    ValueError: a damaged shard, an empty one among those of many records, a
      word id beyond all vocabularies, or no caption.
  """
  index_of_key, image_ids, file_ends = {}, [], []
  num_records, empty = 0, []
  images, words, ends, offsets = (array.array(code) for code in 'iiqq')
  with progress.Progress('Reading captions', len(files), 'files') as bar:
    for name in files:
      offset = 0
      is_read = limit is None or len(ends) < limit
      shards.check_lengths(name)
      dataset = tf.data.TFRecordDataset(name).map(
          lambda record: (tf.strings.length(record),
                          *parse_sequence_example(record)),
          num_parallel_calls=tf.data.AUTOTUNE)
      if limit is not None:
        dataset = dataset.take(limit - len(ends))
      try:
        for size, image_id, encoded, ids, lengths in dataset.prefetch(
            64).as_numpy_iterator():
          if len(ends) == limit:
            break
          num_records += 1
          key = image_id if image_id >= 0 else hashlib.sha256(encoded).digest()
          if key not in index_of_key:
            index_of_key[key] = len(image_ids)
            image_ids.append(image_id)
          # None for no limit, else what is left of it.
          lengths = lengths[:limit and limit - len(ends)]
          images.extend([index_of_key[key]] * len(lengths))
          offsets.extend([offset] * len(lengths))
          offset += shards.HEADER_BYTES + int(size) + shards.FOOTER_BYTES
          ends.extend(len(words) + np.cumsum(lengths))
          words.extend(ids[:lengths.sum()])
      except tf.errors.OpError as e:
        raise ValueError(
            f'damaged record after {len(ends)} captions, in {name}: '
            f'{quiet_tensorflow.reason(e)}; make the shards again') from e
      except OverflowError as e:
        raise ValueError(
            f'image {image_id}: its caption holds a word id of no vocabulary, '
            f'{max(ids, key=abs)}, in {name}; make the shards again') from e
      if is_read and not offset:
        empty.append(name)
      file_ends.append(len(ends))
      bar.update(1)
  if not ends:
    raise ValueError(f'no caption in {files[0]} ...')
  if empty and num_records >= len(files):
    message = (f'{len(empty)} of {len(files)} shards are empty, such as '
               f'{empty[0]}: make the shards again')
    if num_records >= _MANY_RECORDS * len(files):
      raise ValueError(
          f'{message}, or give --input_file_pattern without what is empty')
    logging.warning('%s', message)
  return Captions(
      np.array(image_ids, np.int64), np.array(images), np.array(words),
      np.array(ends), np.array(file_ends, np.int64), np.array(offsets))


def check_captions_per_image(captions_per_image, batch_size,
                             flag='captions_per_image'):
  """Raises ValueError, which names the flag, unless it divides the batch size.

  Args:
    captions_per_image: int, the value of the flag.
    batch_size: captions in a batch.
    flag: name of the flag.
  """
  if captions_per_image < 1 or batch_size % captions_per_image:
    below = batch_size // max(captions_per_image, 1)
    raise ValueError(
        f'--{flag}={captions_per_image} does not divide '
        f'--batch_size={batch_size}: make that '
        f'{max(below, 1) * max(captions_per_image, 1)}, say')


class ImageBatches:
  """Batches of distorted images and their captions, to train from.

  The batch of a step is a function of the seed and the step. Images are read
  from the shards one by one, at the places that a first pass over them found.

  An image that cannot be decoded is named in a warning, once, and its captions
  are left out of the batch.

  Args:
    files: shard file names.
    config: a `configuration.ModelConfig`.
    captions_per_image: captions of one image that share one distorted view of
      it in a batch. Images with fewer left make a batch smaller than the
      configuration's.

  Raises:
    ValueError: captions_per_image does not divide the batch size; a damaged
      shard; or a word id outside the vocabulary.
  """

  def __init__(self, files, config, captions_per_image=1):
    check_captions_per_image(captions_per_image, config.batch_size)
    self._files = files
    self._captions = read_captions(files)
    self._captions.check_ids(config.vocab_size)
    self._groups = self._captions.groups(captions_per_image)
    self._shards = np.searchsorted(
        self._captions.file_ends, self._groups.first_captions, 'right')
    self._size = config.batch_size // captions_per_image
    self._image_shape = (config.image_height, config.image_width, 3)
    self._undecodable = set()

    @tf.function(autograph=False, input_signature=[
        tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.int64)])
    def process(record, place, seed):
      encoded = parse_sequence_example(record)[1]
      return image_processing.process_image(
          image_processing.check_size(encoded), is_training=True,
          height=config.image_height, width=config.image_width, ordering=place,
          seed=tf.stack([seed, place]))

    self._process = process

  def from_step(self, seed, step=0):
    """Yields the `Batch`es from a step on, forever.

    Args:
      seed: int, not negative.
      step: int.

    Raises:
      ValueError: no image can be decoded, or a shard has changed.
    """
    steps = example_order.batches(
        len(self._groups), self._size, seed, step, self._shards)
    # Decoding and distorting is TensorFlow's work, which threads share.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
      yield from map(self._batch, ahead(
          lambda groups, place: (groups, [
              pool.submit(self._image, group, place + i, seed)
              for i, group in enumerate(groups)]),
          (([self._groups[i] for i in examples], place)
           for examples, place, _ in steps), depth=2))

  def _image(self, group, place, seed):
    """Returns the distorted image of a group; None if it is undecodable."""
    caption = group[0]
    shard = np.searchsorted(self._captions.file_ends, caption, 'right')
    record = shards.read_record(
        self._files[shard], int(self._captions.offsets[caption]))
    try:
      return self._process(record, place, seed)
    except tf.errors.InvalidArgumentError:
      image = int(self._captions.images[caption])
      if image not in self._undecodable:
        self._undecodable.add(image)
        logging.warning(
            'image %d in %s cannot be decoded: its captions are left out',
            self._captions.image_ids[image], self._files[shard])
      return None

  def _batch(self, groups_and_images):
    """Makes a batch of groups of captions and the futures of their images."""
    groups, futures = groups_and_images
    images = [future.result() for future in futures]
    good = [(group, image) for group, image in zip(groups, images)
            if image is not None]
    if not good:
      if len(self._undecodable) == len(self._captions.image_ids):
        raise ValueError(
            f'none of the {len(self._undecodable)} image(s) in '
            f'{self._files[0]} ... can be decoded; make the shards again')
      # A step without a word: it counts, and changes nothing.
      blank = np.zeros([1, 1], np.int64)
      return Batch(tf.zeros([1, *self._image_shape]), np.zeros([1], np.int64),
                   blank, blank, blank.astype(np.int32))
    return Batch(
        tf.stack([image for _, image in good]),
        np.repeat(np.arange(len(good)), [len(group) for group, _ in good]),
        *self._captions.sequences(np.concatenate([group for group, _ in good])))


def ahead(start, arguments, depth):
  """Yields start(*args) in order, after `depth` more have been started.

  Args:
    start: callable that starts some work and returns what to wait for.
    arguments: iterable of tuples.
    depth: int.
  """
  started = collections.deque()
  for args in arguments:
    started.append(start(*args))
    if len(started) > depth:
      yield started.popleft()
  yield from started
