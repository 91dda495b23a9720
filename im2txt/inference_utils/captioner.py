# SPDX-License-Identifier: Apache-2.0
"""Encoded images in, captions out."""

import dataclasses
import math
import os

import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import vocabulary
from im2txt.ops import image_processing


@dataclasses.dataclass(frozen=True)
class ScoredCaption:
  """A caption in words.

  Attributes:
    text: words joined by blanks, without <S> and </S>.
    log_probability: natural logarithm, float.
  """
  text: str
  log_probability: float

  @property
  def probability(self):
    return math.exp(self.log_probability)


class Captioner:
  """A checkpoint and its vocabulary, ready to caption.

  Args:
    checkpoint_path: see `checkpoints.resolve`.
    vocab_file: the word_counts.txt that the model was trained with.
    beam_size: see `caption_generator.CaptionGenerator`.
    max_caption_length: likewise.
    length_normalization_factor: likewise.

  Raises:
    ValueError: the checkpoint or the vocabulary cannot be used, or do not fit
      each other.
  """

  def __init__(self, checkpoint_path, vocab_file, beam_size=3,
               max_caption_length=20, length_normalization_factor=0.0):
    self.vocab = vocabulary.Vocabulary(vocab_file)
    checkpoint = checkpoints.Checkpoint(checkpoint_path)
    config, _ = configuration.load(os.path.dirname(checkpoint.prefix))
    config = dataclasses.replace(config, **checkpoint.model_sizes())
    self.vocab.check_fits_model(config.vocab_size)
    self.model = show_and_tell_model.ShowAndTellModel(config)
    variables = self.model.named_variables
    if 'global_step' not in checkpoint.shapes:
      # A caption does not depend on it; some converters dropped it.
      del variables['global_step']
    self.unused_variables = checkpoint.restore(variables)
    self.global_step = checkpoint.global_step

    image = tf.TensorSpec([None, config.image_height, config.image_width, 3])
    state = tf.TensorSpec([None, 2 * config.num_lstm_units])
    self._feed_image = tf.function(
        lambda images: self.model.initial_state(  # pylint: disable=g-long-lambda
            self.model.encode_images(images)),
        input_signature=[image], autograph=False)
    self._step = tf.function(
        self.model.inference_step,
        input_signature=[tf.TensorSpec([None], tf.int64), state],
        autograph=False)
    self._process = tf.function(
        lambda encoded: image_processing.process_image(  # pylint: disable=g-long-lambda
            encoded, height=config.image_height, width=config.image_width),
        input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    self.generator = caption_generator.CaptionGenerator(
        lambda words, states: [x.numpy() for x in self._step(words, states)],
        self.vocab.start_id, self.vocab.end_id, beam_size, max_caption_length,
        length_normalization_factor)

  def decode(self, encoded_image):
    """Decodes the bytes of a JPEG, PNG or GIF file.

    Returns:
      float32 [height, width, 3], what `caption` takes.

    Raises:
      ValueError: the bytes are no such image, or damaged.
    """
    if not encoded_image:
      raise ValueError('the file is empty')
    try:
      return self._process(encoded_image)
    except tf.errors.InvalidArgumentError as e:
      raise ValueError('not a JPEG, PNG or GIF image, or damaged') from e

  def caption(self, images):
    """Captions a batch of images.

    Args:
      images: list of results of `decode`.

    Returns:
      For each image a list of `ScoredCaption`s, best first.
    """
    states = self._feed_image(tf.stack(images)).numpy()
    return [[ScoredCaption(self.text(c.sentence), c.logprob) for c in captions]
            for captions in self.generator.beam_search(states)]

  def text(self, sentence):
    """Joins the words of a list of ids, without <S> and a final </S>."""
    words = sentence[1:]
    if words and words[-1] == self.vocab.end_id:
      words = words[:-1]
    return ' '.join(self.vocab.id_to_word(w) for w in words)
