# SPDX-License-Identifier: Apache-2.0
"""The captions of shards, kept in memory as a few arrays."""

import array
from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.data import shards
from im2txt.runtime import progress

# Records per shard on average. If there are as many, an empty shard has lost its
# records. With fewer records than shards some are empty, as in 2016; with
# slightly more, some may be empty because their images cannot be decoded.
_MANY_RECORDS = 5

# wc -l does not count the last line, which has no line end.
_VOCAB_SIZE = (
  'the number of words in the vocabulary file, plus 1 for <UNK> if it is not '
  'among them'
)


class Sequences(NamedTuple):
  """What the LSTM reads and what it must predict, padded with zeros.

  Attributes:
    input_seqs: int64 [batch, time], <S> w1 ... wn.
    target_seqs: int64 [batch, time], w1 ... wn </S>.
    mask: int32 [batch, time], 1 where there is a word, else 0.
  """

  input_seqs: np.ndarray
  target_seqs: np.ndarray
  mask: np.ndarray


@dataclasses.dataclass
class Captions:
  """The captions of some shards, in the order of their records.

  Attributes:
    image_ids: int64 [num_images], of the distinct images in order first seen.
    images: int32 [num_captions], the index into `image_ids` of each caption.
    words: int32 [num_words], word ids of all captions, with <S> and </S>.
    ends: int64 [num_captions], the end of each caption in `words`.
    file_ends: int64 [num_files], number of captions up to the end of each
      shard.
    offsets: int64 [num_captions], position of each caption's record in its
      shard; None if not known.
  """

  image_ids: np.ndarray
  images: np.ndarray
  words: np.ndarray
  ends: np.ndarray
  file_ends: np.ndarray
  offsets: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.ends)

  def caption(self, index: int) -> np.ndarray:
    """Returns int32 [n], the word ids of a caption."""
    return self.words[self.ends[index - 1] if index else 0 : self.ends[index]]

  def lengths(self, indices: np.ndarray) -> np.ndarray:
    """Returns int64 [n], the numbers of words of captions, with <S> and </S>.

    Args:
      indices: int [n], indices of captions.
    """
    starts = np.where(indices > 0, self.ends[indices - 1], 0)
    return self.ends[indices] - starts

  def check_ids(self, vocab_size: int) -> None:
    """Raises ValueError unless all word ids are from 0 to `vocab_size` - 1."""
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

  def groups(self, size: int, usable: np.ndarray | None = None) -> 'Groups':
    """Groups the captions of each image.

    Args:
      size: the most captions in a group.
      usable: int [n], the captions to use, ascending; None: all.

    Returns:
      The groups, sorted by their first captions.
    """
    if usable is None:
      usable = np.arange(len(self))
    order = usable[np.argsort(self.images[usable], kind='stable')]
    images = self.images[order]
    number = np.arange(len(order)) - np.searchsorted(images, images)
    starts = np.flatnonzero(number % size == 0)
    ends = np.append(starts[1:], len(order))
    by_first = np.argsort(order[starts])
    return Groups(order, starts[by_first], ends[by_first])

  def sequences(self, indices: Collection[int] | np.ndarray) -> Sequences:
    """Returns captions as sequences for the LSTM.

    Args:
      indices: int [batch], indices of captions.

    Returns:
      The sequences, padded to the longest caption.
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
    return Sequences(inputs, targets, mask)


@dataclasses.dataclass
class Groups:
  """Groups of captions, each of one image; a sequence of int arrays.

  Attributes:
    order: int [num_captions], the captions, group by group.
    starts: int [num_groups], the start of each group in `order`.
    ends: int [num_groups], the end of each group in `order`.
  """

  order: np.ndarray
  starts: np.ndarray
  ends: np.ndarray

  def __len__(self) -> int:
    return len(self.starts)

  def __getitem__(self, group: int) -> np.ndarray:
    return self.order[self.starts[group] : self.ends[group]]

  @property
  def first_captions(self) -> np.ndarray:
    """int [num_groups], the first caption of each group."""
    return self.order[self.starts]


def read_captions(files: Sequence[str], limit: int | None = None) -> Captions:
  """Reads the captions of shards, and which of them share an image.

  Images are identified by their id, or by their bytes if a record has no id.

  Args:
    files: paths of shards.
    limit: read this many captions at most; None: all.

  Raises:
    ValueError: a shard is damaged, or empty beside shards of many records; a
      word id is beyond all vocabularies; or there is no caption.
  """
  index_of_key: dict[int | bytes, int] = {}
  image_ids: list[int] = []
  file_ends: list[int] = []
  num_records = 0
  empty: list[str] = []
  images, words, ends, offsets = (array.array(code) for code in 'iiqq')
  with progress.Progress('Reading captions', len(files), 'files') as bar:
    for name in files:
      offset = 0
      is_read = limit is None or len(ends) < limit
      if fault := shards.length_fault(name):
        raise _damaged(len(ends), name, fault)
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
          # None without a limit, else the number of captions left.
          lengths = lengths[: limit and limit - len(ends)]
          images.extend([index_of_key[key]] * len(lengths))
          offsets.extend([offset] * len(lengths))
          offset += shards.HEADER_BYTES + int(size) + shards.FOOTER_BYTES
          ends.extend(len(words) + np.cumsum(lengths))
          words.extend(ids[: lengths.sum()])
      except tf.errors.OpError as e:
        raise _damaged(len(ends), name, shards.reason(e)) from e
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
    raise ValueError(
      f'no caption in {files[0]} ...: give shards that have captions'
    )
  if empty and num_records >= len(files):
    message = (
      f'{len(empty)} of {len(files)} shards are empty, such as '
      f'{empty[0]}: make the shards again'
    )
    if num_records >= _MANY_RECORDS * len(files):
      raise ValueError(
        f'{message}, or give --input_file_pattern without the empty shards'
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


def _damaged(num_captions: int, path: str, reason: str) -> ValueError:
  return ValueError(
    f'damaged record after {num_captions} captions, in {path}: {reason}; make '
    'the shards again'
  )


def check_captions_per_image(
  captions_per_image: int, batch_size: int, flag: str = 'captions_per_image'
) -> None:
  """Raises ValueError unless the value of a flag divides the batch size.

  Args:
    captions_per_image: the value of the flag.
    batch_size: captions per batch.
    flag: name of the flag.
  """
  if captions_per_image < 1 or batch_size % captions_per_image:
    below = batch_size // max(captions_per_image, 1)
    raise ValueError(
      f'--{flag}={captions_per_image} does not divide '
      f'--batch_size={batch_size}: give a multiple, such as --batch_size='
      f'{max(below, 1) * max(captions_per_image, 1)}'
    )
