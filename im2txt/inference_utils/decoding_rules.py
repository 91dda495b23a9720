# SPDX-License-Identifier: Apache-2.0
"""Rules that exclude words from captions: functions in the graph.

A rule takes (softmax float32 [n, vocab_size], sentences int32 [n,
max_caption_length], t). It returns the softmax with 0 for each word that is not
allowed in place t of the caption. From place t on, sentences hold start words.
"""

from collections.abc import Callable
from collections.abc import Sequence

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt.inference_utils import search_config
from im2txt.text import vocabulary

# Takes words int64 [n] and states float32 [n, state_size]. Returns the softmax
# float32 [n, vocab_size] and the new states.
StepFn = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
Rule = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def allowed_words(
  search: search_config.SearchConfig,
  vocab: vocabulary.Vocabulary,
  vocab_size: int,
) -> np.ndarray | None:
  """Returns which words are allowed at all.

  Args:
    search: completed settings.
    vocab: the vocabulary.
    vocab_size: number of word ids of the model, at least the number of words.

  Returns:
    float32 [vocab_size], 1 for words that are allowed and 0 for others; None if
    all are allowed.

  Raises:
    ValueError: a forbidden word is the end word.
  """
  if search.allow_unknown_word and not search.forbidden_words:
    return None
  allowed = np.ones([vocab_size], np.float32)
  if not search.allow_unknown_word:
    allowed[len(vocab) :] = 0
    allowed[vocab.unk_id] = 0
  unknown_word = vocab.id_to_word(vocab.unk_id)
  for word in search.forbidden_words:
    word_id = vocab.word_to_id(word)
    if word_id == vocab.end_id:
      raise ValueError(
        f'forbidden_words={",".join(search.forbidden_words)}: '
        f'every caption ends with {word}'
      )
    if word_id == vocab.unk_id and word != unknown_word:
      logging.warning(
        'forbidden_words: %r is not in the vocabulary file %s', word, vocab.file
      )
    else:
      allowed[word_id] = 0
  return allowed


def required_ids(
  search: search_config.SearchConfig, vocab: vocabulary.Vocabulary
) -> list[int]:
  """Returns the ids of the words that every caption must contain.

  Args:
    search: settings of the search.
    vocab: the vocabulary.

  Raises:
    ValueError: a word is not in the vocabulary, or is a special word.
  """
  special = (vocab.start_id, vocab.end_id, vocab.unk_id)
  ids = [vocab.word_to_id(word) for word in search.required_words]
  for word, word_id in zip(search.required_words, ids):
    if word_id in special:
      raise ValueError(
        f'required_words={",".join(search.required_words)}: {word!r} is not a '
        f'word of the vocabulary file {vocab.file}: give words as they are '
        'written there'
      )
  return ids


def rules(
  search: search_config.SearchConfig, end_id: int, required: Sequence[int] = ()
) -> list[Rule]:
  """Returns the rules of a search.

  Args:
    search: completed settings.
    end_id: id of </S>.
    required: ids of words without which no caption may end.
  """
  found: list[Rule] = []
  if search.min_caption_length > 2:
    found.append(_not_shorter(search.min_caption_length, end_id))
  if search.repeated_words == 'apart':
    found.append(_not_twice_in_a_row)
  elif search.repeated_words == 'never':
    found.append(_no_word_twice)
  if not search.allow_repeated_trigram:
    found.append(_no_trigram_twice)
  if required:
    found.append(_not_without(required, end_id))
  return found


def contains(sentences: tf.Tensor, ids: Sequence[int]) -> tf.Tensor:
  """Returns which words are in captions.

  Args:
    sentences: int32 [n, max_caption_length].
    ids: word ids.

  Returns:
    bool [n, ids].
  """
  return tf.reduce_any(
    sentences[:, :, tf.newaxis] == tf.constant(ids, tf.int32), axis=1
  )


def _without(
  softmax: tf.Tensor, words: tf.Tensor, also: tf.Tensor | None = None
) -> tf.Tensor:
  """Returns the softmax with 0 for some words of each row.

  Args:
    softmax: float32 [n, vocab_size].
    words: int32 [n, m], the words.
    also: bool [n, m], which of `words` are excluded; None for all.
  """
  rows = tf.repeat(
    tf.range(tf.shape(words)[0])[:, tf.newaxis], tf.shape(words)[1], axis=1
  )
  places = tf.stack([rows, words], axis=2)
  if also is not None:
    places = tf.boolean_mask(places, also)
  else:
    places = tf.reshape(places, [-1, 2])
  return tf.tensor_scatter_nd_update(
    softmax, places, tf.zeros([tf.shape(places)[0]])
  )


def _not_shorter(min_caption_length: int, end_id: int) -> Rule:
  def rule(softmax: tf.Tensor, sentences: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    ends = tf.fill([tf.shape(sentences)[0], 1], end_id)
    return _without(
      softmax, ends, tf.fill(tf.shape(ends), t + 1 < min_caption_length)
    )

  return rule


def _not_without(required: Sequence[int], end_id: int) -> Rule:
  def rule(softmax: tf.Tensor, sentences: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    ends = tf.fill([tf.shape(sentences)[0], 1], end_id)
    return _without(
      softmax,
      ends,
      ~tf.reduce_all(contains(sentences, required), axis=1, keepdims=True),
    )

  return rule


def _not_twice_in_a_row(
  softmax: tf.Tensor, sentences: tf.Tensor, t: tf.Tensor
) -> tf.Tensor:
  return _without(softmax, sentences[:, t - 1 : t])


def _no_word_twice(
  softmax: tf.Tensor, sentences: tf.Tensor, _: tf.Tensor
) -> tf.Tensor:
  return _without(softmax, sentences)


def _no_trigram_twice(
  softmax: tf.Tensor, sentences: tf.Tensor, t: tf.Tensor
) -> tf.Tensor:
  # The first word has no place t - 2, and nothing to repeat.
  first = sentences[:, tf.maximum(t - 2, 0)][:, tf.newaxis]
  second = sentences[:, t - 1][:, tf.newaxis]
  same = (sentences[:, :-2] == first) & (sentences[:, 1:-1] == second)
  # The third word must lie before place t.
  is_before = tf.range(2, tf.shape(sentences)[1]) < t
  return _without(softmax, sentences[:, 2:], same & is_before)
