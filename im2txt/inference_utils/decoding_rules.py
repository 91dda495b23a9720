# SPDX-License-Identifier: Apache-2.0
"""Which words may come next in a caption: functions in the graph.

A rule takes (softmax float32 [n, vocab_size], sentences int32 [n,
max_caption_length], t) and returns the softmax with 0 for each word that may
not be the word in place t of the caption. What a sentence has from place t on
are start words.
"""

from absl import logging
import numpy as np
import tensorflow as tf


def allowed_words(search, vocab, vocab_size):
  """Returns which words captions may hold, whatever comes before.

  Args:
    search: a completed `SearchConfig`.
    vocab: the `Vocabulary`.
    vocab_size: int, ids of the model; may be more than there are words.

  Returns:
    float32 [vocab_size], 1 for a word that is allowed and else 0; None if all
    are.

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


def required_ids(search, vocab):
  """Returns the ids of the words that every caption must hold, a list.

  Args:
    search: a `SearchConfig`.
    vocab: the `Vocabulary`.

  Raises:
    ValueError: there is no such word, or it is a special one.
  """
  special = (vocab.start_id, vocab.end_id, vocab.unk_id)
  ids = [vocab.word_to_id(word) for word in search.required_words]
  for word, word_id in zip(search.required_words, ids):
    if word_id in special:
      raise ValueError(
        f'required_words={",".join(search.required_words)}: {word!r} is no '
        f'word of the vocabulary file {vocab.file}: give words as they stand '
        'there'
      )
  return ids


def rules(search, end_id, required=()):
  """Returns the rules of a search, a list.

  Args:
    search: a completed `SearchConfig`.
    end_id: id of </S>.
    required: ids of words without which no caption may end.
  """
  found = []
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


def contains(sentences, ids):
  """Returns which words are in captions.

  Args:
    sentences: int32 [n, max_caption_length].
    ids: list of int.

  Returns:
    bool [n, ids].
  """
  return tf.reduce_any(
    sentences[:, :, tf.newaxis] == tf.constant(ids, tf.int32), axis=1
  )


def _without(softmax, words, also=None):
  """Returns the softmax with 0 for some words of each row.

  Args:
    softmax: float32 [n, vocab_size].
    words: int32 [n, m].
    also: bool [n, m], which of `words` count; None: all.
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


def _not_shorter(min_caption_length, end_id):
  def rule(softmax, sentences, t):
    ends = tf.fill([tf.shape(sentences)[0], 1], end_id)
    return _without(
      softmax, ends, tf.fill(tf.shape(ends), t + 1 < min_caption_length)
    )

  return rule


def _not_without(required, end_id):
  def rule(softmax, sentences, _):
    ends = tf.fill([tf.shape(sentences)[0], 1], end_id)
    return _without(
      softmax,
      ends,
      ~tf.reduce_all(contains(sentences, required), axis=1, keepdims=True),
    )

  return rule


def _not_twice_in_a_row(softmax, sentences, t):
  return _without(softmax, sentences[:, t - 1 : t])


def _no_word_twice(softmax, sentences, _):
  return _without(softmax, sentences)


def _no_trigram_twice(softmax, sentences, t):
  # Before the second word there is nothing to repeat, and no place t - 2.
  first = sentences[:, tf.maximum(t - 2, 0)][:, tf.newaxis]
  second = sentences[:, t - 1][:, tf.newaxis]
  same = (sentences[:, :-2] == first) & (sentences[:, 1:-1] == second)
  # The third word must be one of the caption.
  is_before = tf.range(2, tf.shape(sentences)[1]) < t
  return _without(softmax, sentences[:, 2:], same & is_before)
