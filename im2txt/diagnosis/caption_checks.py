# SPDX-License-Identifier: Apache-2.0
"""Checks of words and captions: of the data, and of what the model writes."""

import collections
from collections.abc import Iterator
import itertools

import numpy as np
import tensorflow as tf

from im2txt.diagnosis import case as case_lib
from im2txt.diagnosis.observation import Observation

# Of all words; every tenth is too many.
_MOST_UNKNOWN = 0.1
# Perplexities that differ by less are equal: with the images of others, which
# are many, and with another preprocessing of few images.
_MARGIN, _MARGIN_OF_FEW = 1.02, 1.05
# Images whose places are exchanged, by how many: the mean is steadier.
_SHIFTS = 3
# Encoding is slow, and a wrong preprocessing shows in few images.
_IMAGES_PREPROCESSED = 16
# Fewer captions say nothing about whether they are all the same.
_FEWEST_CAPTIONS = 4
# Share of the images.
_MOST_OF_ONE_CAPTION, _MOST_REPETITIVE = 0.5, 0.1
# Equal words in a row that no writer of captions writes.
_IN_A_ROW = 3


def scaled_to_255(image: tf.Tensor) -> tf.Tensor:
  """Pixels in [0, 255]."""
  return (image + 1) * 127.5


def not_centred(image: tf.Tensor) -> tf.Tensor:
  """Pixels in [0, 1]."""
  return (image + 1) / 2


def blue_first(image: tf.Tensor) -> tf.Tensor:
  """Returns [height, width, 3] with its channels in the order of OpenCV."""
  return image[..., ::-1]


_WRONG_PREPROCESSINGS = {
  'with pixels in [0, 255]': scaled_to_255,
  'with pixels in [0, 1]': not_centred,
  'with blue before red': blue_first,
}


def vocabulary_is_one(case: case_lib.Case) -> Iterator[Observation]:
  """Shards, vocabulary file and checkpoint have the same vocabulary."""
  if case.vocabulary_fault:
    yield Observation(*case.vocabulary_fault)
  else:
    yield Observation('no disagreement')


def words_are_known(case: case_lib.Case) -> Iterator[Observation]:
  """Few words of the captions are <UNK>."""
  captions = itertools.chain(*case.sample.captions.values())
  words = np.concatenate([caption[1:-1] for caption in captions])
  share = float(np.mean(words == case.vocab.unk_id)) if len(words) else 0.0
  evidence = (
    f'{share:.1%} of {len(words)} words are <UNK>, in a vocabulary of '
    f'{len(case.vocab)} words'
  )
  if share >= _MOST_UNKNOWN:
    yield Observation(
      evidence,
      'make the shards again with a lower --min_word_count, and look whether '
      '--tokenizer is the right one for the language',
    )
  else:
    yield Observation(evidence)


def image_is_used(case: case_lib.Case) -> Iterator[Observation]:
  """Captions are likelier with their own images than with others'."""
  features = case.features()
  if len(features) < 2:
    raise case_lib.NotAtHandError('one image cannot be exchanged for another')
  own = case.perplexity(features)
  shifts = sorted(
    {max(1, len(features) * n // (_SHIFTS + 1)) for n in range(1, _SHIFTS + 1)}
  )
  other = float(
    np.exp(
      np.mean(
        [np.log(case.perplexity(np.roll(features, n, 0))) for n in shifts]
      )
    )
  )
  evidence = (
    f'perplexity {own:.2f} with the right images and {other:.2f} with the '
    'images of others'
  )
  if other < own * _MARGIN:
    yield Observation(
      f'{evidence}: the model ignores the image',
      'first put right what is found about encoder, preprocessing and steps; '
      'if that is nothing, train longer',
    )
  else:
    yield Observation(evidence)


def preprocessing_is_right(case: case_lib.Case) -> Iterator[Observation]:
  """No wrong preprocessing of the images suits the model better."""
  features = case.features()[:_IMAGES_PREPROCESSED]
  own = case.perplexity(features)
  others = {
    name: case.perplexity(case.features(preprocess, len(features)))
    for name, preprocess in _WRONG_PREPROCESSINGS.items()
  }
  evidence = f'perplexity {own:.2f} with pixels in [-1, 1], ' + ', '.join(
    f'{value:.2f} {name}' for name, value in others.items()
  )
  best = min(others, key=others.__getitem__)
  if others[best] * _MARGIN_OF_FEW < own:
    yield Observation(
      f'{evidence}: the model was trained on images processed in another way',
      f'train the decoder again by train of im2txt, or caption {best}',
    )
  else:
    yield Observation(evidence)


def captions_differ(case: case_lib.Case) -> Iterator[Observation]:
  """Images do not all get the same caption."""
  captions = case.captions
  if len(captions) < _FEWEST_CAPTIONS:
    raise case_lib.NotAtHandError(
      f'{len(captions)} images, fewer than {_FEWEST_CAPTIONS}'
    )
  ((text, count),) = collections.Counter(captions).most_common(1)
  evidence = (
    f'{len(set(captions))} different captions of {len(captions)} images, the '
    f'most frequent {count} times: {text!r}'
  )
  if count >= _MOST_OF_ONE_CAPTION * len(captions):
    yield Observation(
      evidence,
      'first put right what else is found; if that is nothing, train longer: '
      'the commonest caption is what a model learns first',
    )
  else:
    yield Observation(evidence)


def is_repetitive(caption: str) -> bool:
  """Returns whether a caption has one word several times in a row.

  >>> is_repetitive('a dog dog dog')
  True
  >>> is_repetitive('a dog and a dog')
  False
  """
  return any(
    len(list(group)) >= _IN_A_ROW
    for _, group in itertools.groupby(caption.split())
  )


def words_do_not_repeat(case: case_lib.Case) -> Iterator[Observation]:
  """Captions do not repeat one word again and again."""
  repetitive = [c for c in case.captions if is_repetitive(c)]
  evidence = f'{len(repetitive)} of {len(case.captions)} captions repeat a word'
  if len(repetitive) >= _MOST_REPETITIVE * len(case.captions):
    yield Observation(
      f'{evidence}, such as {repetitive[0]!r}',
      'go on from a checkpoint before the fine-tuning with a lower '
      '--train_inception_learning_rate, or --train_inception_from=Mixed_7a; '
      'run_inference --repeated_words=apart hides it',
    )
  else:
    yield Observation(evidence)
