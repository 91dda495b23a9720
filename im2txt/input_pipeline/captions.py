# SPDX-License-Identifier: Apache-2.0
"""The captions of shards, kept in memory as a few arrays."""

import array
import dataclasses
import hashlib

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.runtime import progress
from im2txt.runtime import quiet_tensorflow

# Per shard on average: then an empty one has lost its records. Fewer records
# than shards leave some empty, as in 2016; with hardly more, images that cannot
# be decoded do.
_MANY_RECORDS = 5

# wc -l would miss a last line without an end, as vocabulary files have it.
_VOCAB_SIZE = (
  'the number of words of the vocabulary file, and 1 for <UNK> if '
  'that is not among them'
)


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
    return self.words[self.ends[index - 1] if index else 0 : self.ends[index]]

  def check_ids(self, vocab_size):
    """Raises ValueError unless every word id is from 0 to `vocab_size` - 1."""
    wrong = np.flatnonzero((self.words >= vocab_size) | (self.words < 0))
    if len(wrong):
      caption = np.searchsorted(self.ends, wrong[0], side='right')
      if self.words[wrong[0]] < 0:
        raise ValueError(
          f'image {self.image_ids[self.images[caption]]}: its caption holds '
          f'the negative word id {self.words[wrong[0]]}; make the shards '
          'again'
        )
      raise ValueError(
        f'image {self.image_ids[self.images[caption]]}: its caption holds '
        f"word id {self.words[wrong[0]]}, not below the model's vocabulary "
        f'size {vocab_size}; give train --vocab_size={self.words.max() + 1} '
        f'or more: {_VOCAB_SIZE}'
      )

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
    return self.order[self.starts[group] : self.ends[group]]

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
        lambda record: (
          tf.strings.length(record),
          *shards.parse_sequence_example(record),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
      )
      if limit is not None:
        dataset = dataset.take(limit - len(ends))
      try:
        for size, image_id, encoded, ids, lengths in dataset.prefetch(
          64
        ).as_numpy_iterator():
          if len(ends) == limit:
            break
          num_records += 1
          key = image_id if image_id >= 0 else hashlib.sha256(encoded).digest()
          if key not in index_of_key:
            index_of_key[key] = len(image_ids)
            image_ids.append(image_id)
          # None for no limit, else what is left of it.
          lengths = lengths[: limit and limit - len(ends)]
          images.extend([index_of_key[key]] * len(lengths))
          offsets.extend([offset] * len(lengths))
          offset += shards.HEADER_BYTES + int(size) + shards.FOOTER_BYTES
          ends.extend(len(words) + np.cumsum(lengths))
          words.extend(ids[: lengths.sum()])
      except tf.errors.OpError as e:
        raise ValueError(
          f'damaged record after {len(ends)} captions, in {name}: '
          f'{quiet_tensorflow.reason(e)}; make the shards again'
        ) from e
      except OverflowError as e:
        raise ValueError(
          f'image {image_id}: its caption holds a word id of no vocabulary, '
          f'{max(ids, key=abs)}, in {name}; make the shards again'
        ) from e
      if is_read and not offset:
        empty.append(name)
      file_ends.append(len(ends))
      bar.update(1)
  if not ends:
    raise ValueError(f'no caption in {files[0]} ...')
  if empty and num_records >= len(files):
    message = (
      f'{len(empty)} of {len(files)} shards are empty, such as '
      f'{empty[0]}: make the shards again'
    )
    if num_records >= _MANY_RECORDS * len(files):
      raise ValueError(
        f'{message}, or give --input_file_pattern without what is empty'
      )
    logging.warning('%s', message)
  return Captions(
    np.array(image_ids, np.int64),
    np.array(images),
    np.array(words),
    np.array(ends),
    np.array(file_ends, np.int64),
    np.array(offsets),
  )


def check_captions_per_image(
  captions_per_image, batch_size, flag='captions_per_image'
):
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
      f'{max(below, 1) * max(captions_per_image, 1)}, say'
    )
