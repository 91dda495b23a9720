# SPDX-License-Identifier: Apache-2.0
"""Batches of images and captions from TFRecord shards of SequenceExamples."""

import array
import dataclasses
import glob
import hashlib

import numpy as np
import tensorflow as tf

from im2txt import progress
from im2txt.ops import image_processing

IMAGE_ID = 'image/image_id'
IMAGE_DATA = 'image/data'
CAPTION_IDS = 'image/caption_ids'

# wc -l would miss a last line without an end, as vocabulary files have it.
_VOCAB_SIZE = ('the number of words of the vocabulary file, and 1 for <UNK> if '
               'that is not among them')


def list_files(file_pattern, flag='input_file_pattern'):
  """Returns the sorted files that comma-separated patterns match.

  Sorted, so that a run does not depend on the file system's order.

  Raises:
    ValueError: a pattern matches nothing.
  """
  files = []
  for pattern in file_pattern.split(','):
    found = glob.glob(pattern)
    if not found:
      raise ValueError(f'--{flag}={file_pattern}: no file matches {pattern}')
    files.extend(found)
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


def _check_ids(vocab_size, caption):
  """Raises InvalidArgumentError unless every id is a row of the embedding."""
  check = tf.debugging.assert_less(
      caption, tf.constant(vocab_size, caption.dtype),
      message='a caption holds a word id that is not below --vocab_size='
      f'{vocab_size}; give {_VOCAB_SIZE}')
  with tf.control_dependencies([check]):
    return tf.identity(caption)


@dataclasses.dataclass
class Captions:
  """The captions of some shards, in the order of their records.

  Attributes:
    image_ids: int64 [num_images], of the distinct images in order first seen.
    images: int32 [num_captions], the index into `image_ids` of each caption.
    words: int32 [num_words], ids of all captions, with <S> and </S>.
    ends: int64 [num_captions], where each caption ends in `words`.
    file_ends: int64 [num_files], captions up to the end of each shard.
  """
  image_ids: np.ndarray
  images: np.ndarray
  words: np.ndarray
  ends: np.ndarray
  file_ends: np.ndarray

  def __len__(self):
    return len(self.ends)

  def caption(self, index):
    """Returns int32 [n], the word ids of a caption."""
    return self.words[self.ends[index - 1] if index else 0:self.ends[index]]

  def check_ids(self, vocab_size):
    """Raises ValueError unless every word id is below `vocab_size`."""
    wrong = np.flatnonzero(self.words >= vocab_size)
    if len(wrong):
      caption = np.searchsorted(self.ends, wrong[0], side='right')
      raise ValueError(
          f'image {self.image_ids[self.images[caption]]}: its caption holds '
          f'word id {self.words[wrong[0]]}, not below the model\'s vocabulary '
          f'size {vocab_size}; give train --vocab_size={self.words.max() + 1} '
          f'or more: {_VOCAB_SIZE}')

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
      n = len(caption) - 1
      inputs[i, :n] = caption[:-1]
      targets[i, :n] = caption[1:]
      mask[i, :n] = 1
    return inputs, targets, mask


def read_captions(files, limit=None):
  """Reads the captions of shards, and which of them share an image.

  Images are told apart by their id, or where a record has none by their bytes.

  Args:
    files: shard file names.
    limit: read at most so many captions.

  Returns:
    `Captions`.

  Raises:
    ValueError: a damaged shard, or no caption.
  """
  index_of_key, image_ids, file_ends = {}, [], []
  images, words, ends = (array.array(code) for code in 'iiq')
  with progress.Progress('Reading captions', len(files), 'files') as bar:
    for name in files:
      dataset = tf.data.TFRecordDataset(name).map(
          parse_sequence_example, num_parallel_calls=tf.data.AUTOTUNE)
      if limit is not None:
        dataset = dataset.take(limit - len(ends))
      try:
        for image_id, encoded, ids, lengths in dataset.prefetch(
            64).as_numpy_iterator():
          if len(ends) == limit:
            break
          key = image_id if image_id >= 0 else hashlib.sha256(encoded).digest()
          if key not in index_of_key:
            index_of_key[key] = len(image_ids)
            image_ids.append(image_id)
          # None for no limit, else what is left of it.
          lengths = lengths[:limit and limit - len(ends)]
          images.extend([index_of_key[key]] * len(lengths))
          ends.extend(len(words) + np.cumsum(lengths))
          words.extend(ids[:lengths.sum()])
      except tf.errors.OpError as e:
        raise ValueError(
            f'damaged record after {len(ends)} captions, in {name}: '
            f'{e.message}; make the shards again') from e
      file_ends.append(len(ends))
      bar.update(1)
  if not ends:
    raise ValueError(f'no caption in {files[0]} ...')
  return Captions(
      np.array(image_ids, np.int64), np.array(images), np.array(words),
      np.array(ends), np.array(file_ends, np.int64))


def _caption_groups(captions, size):
  """Groups the captions of each image, `size` or fewer in a group.

  Returns:
    (sorted_words, starts, sizes): the captions image by image, a RaggedTensor
    of int64; and for each caption, where its group starts in them and how many
    it holds. A group is that of its first caption: the others hold none.
  """
  order = np.argsort(captions.images, kind='stable')
  by_image = captions.images[order]
  count = np.bincount(by_image)
  first = np.cumsum(count) - count
  place = np.arange(len(order)) - first[by_image]
  starts, sizes = np.zeros_like(order), np.zeros_like(order)
  starts[order] = np.arange(len(order))
  sizes[order] = np.where(
      place % size == 0, np.minimum(count[by_image] - place, size), 0)
  sorted_words = tf.RaggedTensor.from_row_lengths(
      np.concatenate([captions.caption(i) for i in order]).astype(np.int64),
      [len(captions.caption(i)) for i in order])
  return sorted_words, tf.constant(starts), tf.constant(sizes)


def _is_compact(files):
  """Returns whether the first record of some shards holds several captions."""
  try:
    for serialized in tf.data.TFRecordDataset(files).take(1):
      return len(parse_sequence_example(serialized)[3]) > 1
  except tf.errors.OpError as e:
    raise ValueError(f'damaged record in {files[0]} ...: {e.message}; make the '
                     'shards again') from e
  return False


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


def training_batches(files, config, seed=None, captions_per_image=1):
  """Endless shuffled batches of distorted images and their captions.

  A record whose image cannot be decoded is skipped with a warning. Iterating
  raises `tf.errors.InvalidArgumentError` at a word id outside the vocabulary,
  and ends if there is no usable record.

  Args:
    files: shard file names.
    config: a `configuration.ModelConfig`.
    seed: int, makes order and distortion of examples repeatable.
    captions_per_image: captions of one image that share one distorted view of
      it in a batch. Above 1, shards that are not compact are read once in
      advance to learn which records are of the same image; then the first
      record of a group stands for all of it, so that an epoch still has each
      caption once.

  Returns:
    A `tf.data.Dataset` of (images float32 [num_images, height, width, 3],
    image_rows int64 [batch], the image of each caption, input_seqs int64
    [batch, time], target_seqs, mask int32), padded with zeros to the longest
    caption of the batch. Images with fewer than `captions_per_image` captions
    left make a batch smaller than the configuration's.

  Raises:
    ValueError: captions_per_image does not divide the batch size, or shards
      cannot be read.
  """
  check_captions_per_image(captions_per_image, config.batch_size)
  first_captions = np.zeros(len(files), np.int64)
  groups, captions_per_example = None, 1
  if captions_per_image > 1 and _is_compact(files):
    captions_per_example = captions_per_image
  elif captions_per_image > 1:
    captions = read_captions(files)
    captions.check_ids(config.vocab_size)
    first_captions[1:] = captions.file_ends[:-1]
    groups = _caption_groups(captions, captions_per_image)

  def examples(serialized):
    _, encoded, words, lengths = parse_sequence_example(serialized)
    captions = tf.RaggedTensor.from_row_lengths(words, lengths).to_tensor()
    return tf.data.Dataset.from_tensor_slices((captions, lengths)).batch(
        captions_per_example).map(lambda captions, lengths: (
            encoded, captions[:, :tf.reduce_max(lengths)], lengths))

  dataset = tf.data.Dataset.from_tensor_slices((files, first_captions))
  dataset = dataset.shuffle(len(files), seed=seed)
  dataset = dataset.interleave(
      lambda name, first: tf.data.TFRecordDataset(name).flat_map(
          examples).enumerate(first),
      cycle_length=min(len(files), 16), num_parallel_calls=tf.data.AUTOTUNE)
  if groups:
    words, starts, sizes = groups
    dataset = dataset.filter(lambda caption, _: sizes[caption] > 0)
  dataset = dataset.shuffle(
      config.values_per_input_shard * config.input_queue_capacity_factor,
      seed=seed)

  def read(index, example):
    caption, (encoded, captions, lengths) = example
    image = image_processing.process_image(
        image_processing.check_size(encoded), is_training=True,
        height=config.image_height, width=config.image_width, ordering=index,
        seed=None if seed is None else tf.stack([seed, index]))
    if groups:
      group = words[starts[caption]:starts[caption] + sizes[caption]]
      return image, group.to_tensor(), group.row_lengths()
    return image, captions, lengths

  def flatten(images, captions, lengths):
    present = lengths >= 0
    captions = _check_ids(
        config.vocab_size, tf.boolean_mask(captions, present))
    mask = tf.sequence_mask(
        tf.boolean_mask(lengths, present) - 1,
        tf.maximum(tf.shape(captions)[1] - 1, 0))
    words_mask = tf.cast(mask, tf.int64)
    return (images, tf.where(present)[:, 0], captions[:, :-1] * words_mask,
            captions[:, 1:] * words_mask, tf.cast(mask, tf.int32))

  dataset = dataset.enumerate().map(
      read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=seed is not None)
  # Repeated only now, so that data without one good image come to an end.
  dataset = dataset.ignore_errors(log_warning=True).repeat()
  dataset = dataset.padded_batch(
      config.batch_size // captions_per_image, drop_remainder=True,
      # No caption: a group that is smaller than others.
      padding_values=(None, None, tf.constant(-1, tf.int64)))
  return dataset.map(flatten).prefetch(4)
