# SPDX-License-Identifier: Apache-2.0
"""Tests of decoding_rules."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils.search_config import SearchConfig
from im2txt.text import vocabulary

_WORDS = ['a', '<S>', '</S>', 'dog', 'cat']
_START, _END = 1, 2


@pytest.fixture(name='vocab')
def fixture_vocab(tmp_path):
  path = tmp_path / 'word_counts.txt'
  path.write_text(''.join(f'{word} 1\n' for word in _WORDS))
  return vocabulary.Vocabulary(str(path))


def struck_out(sentence, required=(), **settings):
  """Returns the ids out of 8 that may not follow a caption, a set."""
  length = 12
  padded = tf.constant(
    [sentence + [_START] * (length - len(sentence)), [_START] * length]
  )
  softmax = tf.fill([2, 8], 0.125)
  for rule in decoding_rules.rules(
    SearchConfig(**settings).completed(), _END, required
  ):
    softmax = rule(softmax, padded, len(sentence))
  return set(np.flatnonzero(softmax[0].numpy() == 0).tolist())


def test_without_settings_there_are_no_rules():
  assert not decoding_rules.rules(SearchConfig().completed(), _END)


@pytest.mark.parametrize('length, out', [(1, {_END}), (3, {_END}), (4, set())])
def test_no_caption_is_shorter(length, out):
  # The end word would be the fifth.
  assert struck_out([_START, 0, 3, 4][:length], min_caption_length=5) == out


def test_no_word_twice():
  sentence = [_START, 3, 0, 4]
  assert struck_out(sentence, repeated_words='apart') == {4}
  assert struck_out(sentence, repeated_words='never') == {_START, 3, 0, 4}
  assert struck_out([_START], repeated_words='apart') == {_START}


@pytest.mark.parametrize(
  'sentence, out',
  [
    ([_START], set()),
    ([_START, 3], set()),
    ([_START, 3, 4, 5], set()),
    # 3 4 was followed by 5, and by 6.
    ([_START, 3, 4, 5, 3, 4], {5}),
    ([_START, 3, 4, 5, 3, 4, 6, 3, 4], {5, 6}),
    # The end of the caption is no third word yet.
    ([_START, 3, 3], set()),
    ([_START, 3, 3, 3], {3}),
    ([_START, 3, 4, 3, 4], {3}),
  ],
)
def test_no_trigram_twice(sentence, out):
  assert struck_out(sentence, allow_repeated_trigram=False) == out


def test_no_end_without_the_required_words():
  for sentence, out in (
    ([_START], {_END}),
    ([_START, 3, 0], {_END}),
    ([_START, 4, 0, 3], set()),
  ):
    assert struck_out(sentence, required=[3, 4]) == out


def test_rules_go_together():
  assert struck_out(
    [_START, 3, 4, 3, 4],
    required=[6],
    repeated_words='apart',
    allow_repeated_trigram=False,
  ) == {_END, 3, 4}


def test_the_rows_do_not_meet():
  sentences = tf.constant([[_START, 3, _START], [_START, 4, _START]])
  (rule,) = decoding_rules.rules(
    SearchConfig(repeated_words='never').completed(), _END
  )
  np.testing.assert_array_equal(
    rule(tf.ones([2, 6]), sentences, 2),
    [[1, 0, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1]],
  )


def test_allowed_words(vocab, caplog):
  def allowed(**settings):
    return decoding_rules.allowed_words(
      SearchConfig(**settings).completed(), vocab, 7
    )

  assert allowed() is None
  assert allowed(allow_unknown_word=False).tolist() == [1, 1, 1, 1, 1, 0, 0]
  assert allowed(forbidden_words=('dog', 'a')).tolist() == [0, 1, 1, 0, 1, 1, 1]
  assert not caplog.messages
  # A list for many models may have words that one of them does not know.
  assert allowed(forbidden_words=('bird',)).tolist() == [1] * 7
  assert "'bird' is not in the vocabulary file" in caplog.text
  assert allowed(forbidden_words=('<UNK>',)).tolist() == [1] * 5 + [0, 1]
  with pytest.raises(ValueError, match='forbidden_words=a,</S>'):
    allowed(forbidden_words=('a', '</S>'))


@pytest.mark.parametrize('word', ['bird', '<UNK>', '<S>', '</S>'])
def test_required_words_are_of_the_vocabulary(vocab, word):
  assert decoding_rules.required_ids(
    SearchConfig(required_words=('cat', 'a')), vocab
  ) == [4, 0]
  with pytest.raises(
    ValueError,
    match=f"cat,{word}: '{word}' is not a word of "
    'the vocabulary file .*word_counts.txt',
  ):
    decoding_rules.required_ids(
      SearchConfig(required_words=('cat', word)), vocab
    )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
