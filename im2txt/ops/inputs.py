# SPDX-License-Identifier: Apache-2.0
"""Batches of images and captions from TFRecord shards of SequenceExamples."""

import dataclasses
import glob

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.ops import image_processing

IMAGE_ID = 'image/image_id'
IMAGE_DATA = 'image/data'
CAPTION_IDS = 'image/caption_ids'


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
  """Parses one record.

  Args:
    serialized: string scalar, a `tf.train.SequenceExample`.

  Returns:
    (image_id int64 scalar, encoded image string scalar, caption int64 [n],
    with the ids of <S> and </S>).
  """
  context, sequence = tf.io.parse_single_sequence_example(
      serialized,
      context_features={
          IMAGE_ID: tf.io.FixedLenFeature([], tf.int64, default_value=-1),
          IMAGE_DATA: tf.io.FixedLenFeature([], tf.string),
      },
      sequence_features={
          CAPTION_IDS: tf.io.FixedLenSequenceFeature([], tf.int64),
      })
  return context[IMAGE_ID], context[IMAGE_DATA], sequence[CAPTION_IDS]


def caption_to_sequences(caption):
  """Splits a caption into what the LSTM reads and what it should predict.

  Args:
    caption: int64 [n], n >= 1.

  Returns:
    (input_seq, target_seq, mask), each [n - 1]: all but the last word, all but
    the first, and ones.
  """
  return caption[:-1], caption[1:], tf.ones_like(caption[1:], tf.int32)


def _check_ids(vocab_size, caption):
  """Raises InvalidArgumentError unless every id is a row of the embedding."""
  check = tf.debugging.assert_less(
      caption, tf.constant(vocab_size, caption.dtype),
      message='a caption holds a word id that is not below --vocab_size='
      f'{vocab_size}; give the vocabulary\'s size (its lines + 1)')
  with tf.control_dependencies([check]):
    return tf.identity(caption)


def training_batches(files, config, seed=None):
  """Endless shuffled batches of distorted images and their captions.

  A record whose image cannot be decoded is skipped with a warning. Iterating
  raises `tf.errors.InvalidArgumentError` at a word id outside the vocabulary,
  and ends if there is no usable record.

  Args:
    files: shard file names.
    config: a `configuration.ModelConfig`.
    seed: int, makes the order of examples repeatable.

  Returns:
    A `tf.data.Dataset` of (images float32 [batch, height, width, 3],
    input_seqs int64 [batch, time], target_seqs, mask int32), padded with zeros
    to the longest caption of the batch.
  """
  dataset = tf.data.Dataset.from_tensor_slices(files)
  dataset = dataset.shuffle(len(files), seed=seed)
  dataset = dataset.interleave(
      tf.data.TFRecordDataset, cycle_length=min(len(files), 16),
      num_parallel_calls=tf.data.AUTOTUNE)
  dataset = dataset.shuffle(
      config.values_per_input_shard * config.input_queue_capacity_factor,
      seed=seed)

  def read(index, serialized):
    _, encoded, caption = parse_sequence_example(serialized)
    image = image_processing.process_image(
        encoded, is_training=True, height=config.image_height,
        width=config.image_width, ordering=index)
    return (image, caption)

  dataset = dataset.enumerate().map(
      read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=seed is not None)
  # Repeated only now, so that data without one good image come to an end.
  dataset = dataset.ignore_errors(log_warning=True).repeat()
  dataset = dataset.map(
      lambda image, caption: (
          image, *caption_to_sequences(_check_ids(config.vocab_size, caption))))
  return dataset.padded_batch(
      config.batch_size, drop_remainder=True).prefetch(4)


@dataclasses.dataclass
class ImageFeatures:
  """Captions with the features of their images, each image encoded once.

  Attributes:
    features: float32 [num_images, 2048].
    rows: int [num_captions], the row of `features` of each caption.
    captions: list of int64 [n], word ids with <S> and </S>.
    skipped: ids of the images that could not be decoded, a list.
  """
  features: np.ndarray
  rows: np.ndarray
  captions: list
  skipped: list

  def batch(self, indices):
    """Returns (features, input_seqs, target_seqs, mask) of some captions.

    Args:
      indices: int [batch] into `captions`.

    Returns:
      float32 [batch, 2048], int64 [batch, time] twice, int32 [batch, time];
      padded with zeros to the longest caption.
    """
    captions = [self.captions[i] for i in indices]
    time = max(max(len(c) for c in captions) - 1, 1)
    inputs = np.zeros([len(captions), time], np.int64)
    targets = np.zeros_like(inputs)
    mask = np.zeros_like(inputs, dtype=np.int32)
    for i, caption in enumerate(captions):
      n = len(caption) - 1
      inputs[i, :n] = caption[:-1]
      targets[i, :n] = caption[1:]
      mask[i, :n] = 1
    return self.features[self.rows[indices]], inputs, targets, mask

  def batches(self, batch_size):
    """Yields every caption once, in order; the last batch may be smaller."""
    for start in range(0, len(self.captions), batch_size):
      yield self.batch(
          np.arange(start, min(start + batch_size, len(self.captions))))

  def endless_shuffled_batches(self, batch_size, seed=None):
    """Yields full batches forever, each epoch in another order."""
    rng = np.random.default_rng(seed)
    pending = np.zeros([0], int)
    while True:
      while len(pending) < batch_size:
        pending = np.concatenate(
            [pending, rng.permutation(len(self.captions))])
      yield self.batch(pending[:batch_size])
      pending = pending[batch_size:]


def encode_captioned_images(files, encode_fn, config, limit=None,
                            progress=lambda captions: None):
  """Encodes each image of some shards once, undistorted, by its image id.

  Args:
    files: shard file names.
    encode_fn: callable, images float32 [batch, height, width, 3] -> features
      float32 [batch, 2048].
    config: a `configuration.ModelConfig`.
    limit: read at most so many captions.
    progress: called with the number of captions read, now and then.

  Returns:
    `ImageFeatures`. Records with an undecodable image are left out.

  Raises:
    ValueError: a damaged shard, or a word id outside the model's vocabulary.
  """
  dataset = tf.data.TFRecordDataset(files).map(
      parse_sequence_example, num_parallel_calls=tf.data.AUTOTUNE)
  if limit is not None:
    dataset = dataset.take(limit)
  process = tf.function(
      lambda encoded: image_processing.process_image(  # pylint: disable=g-long-lambda
          encoded, height=config.image_height, width=config.image_width),
      input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
  row_of_id, skipped, rows, captions = {}, {}, [], []
  waiting, features = [], []

  def flush():
    if waiting:
      features.append(np.asarray(encode_fn(tf.stack(waiting))))
      waiting.clear()

  count = 0
  try:
    for image_id, encoded, caption in dataset.prefetch(64).as_numpy_iterator():
      count += 1
      if len(caption) and caption.max() >= config.vocab_size:
        raise ValueError(
            f'image {image_id}: its caption holds word id {caption.max()}, not '
            f'below the model\'s vocabulary size {config.vocab_size}; give the '
            'vocabulary\'s size (its lines + 1) as --vocab_size to train')
      if image_id in skipped:
        continue
      if image_id not in row_of_id:
        try:
          waiting.append(process(encoded))
        except tf.errors.InvalidArgumentError:
          logging.warning('image %d cannot be decoded: skipped', image_id)
          skipped[image_id] = True
          continue
        row_of_id[image_id] = len(row_of_id)
        if len(waiting) == config.batch_size:
          flush()
          progress(count)
      rows.append(row_of_id[image_id])
      captions.append(caption)
    flush()
    progress(count)
  except tf.errors.DataLossError as e:
    raise ValueError(
        f'damaged record after {count} captions of {files[0]} ...: '
        f'{e.message}; make the shards again') from e
  if not captions:
    raise ValueError(f'no usable caption in {files[0]} ...')
  return ImageFeatures(
      np.concatenate(features), np.array(rows), captions, list(skipped))
