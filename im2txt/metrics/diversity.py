# SPDX-License-Identifier: Apache-2.0
"""How varied captions are, and how many of them were seen in training."""

MEASURES = ('distinct_captions', 'vocabulary_used', 'mean_length')


def diversity(captions):
  """Measures how varied the captions of a set of images are.

  Args:
    captions: list of str, tokens joined by blanks, one caption an image.

  Returns:
    dict of MEASURES: `distinct_captions` (int), `vocabulary_used` (int,
    different words), `mean_length` (float, words a caption).
  """
  words = [word for caption in captions for word in caption.split()]
  return dict(zip(MEASURES, (
      len(set(captions)), len(set(words)),
      len(words) / max(len(captions), 1))))


def share_in_training(captions, training_captions):
  """Returns the share of captions that are in the training set, word by word.

  One minus this is their novelty (section 4.3.6 of the paper: 0.8 of the best
  captions of MSCOCO's model were in its training set, half of the 15 best).

  Args:
    captions: list of str, tokens joined by blanks.
    training_captions: set of str, likewise.

  Returns:
    float in [0, 1]; 0 of no captions.
  """
  found = sum(caption in training_captions for caption in captions)
  return found / max(len(captions), 1)
