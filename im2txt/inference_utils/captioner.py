# SPDX-License-Identifier: Apache-2.0
"""Images or their features in, captions out."""

import dataclasses
import math
import os

import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt import vocabulary_stamp
from im2txt.inference_utils import beam_search
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import vocabulary
from im2txt.ops import folded_inception
from im2txt.ops import image_processing


@dataclasses.dataclass(frozen=True)
class ScoredCaption:
  """A caption in words.

  Attributes:
    text: words without <S> and </S>, joined by blanks, or by what the
      tokenizer of the training captions wants.
    log_probability: natural logarithm, float.
  """
  text: str
  log_probability: float

  @property
  def probability(self):
    return math.exp(self.log_probability)


class FeatureCaptioner:
  """Captions images whose features are known.

  Args:
    model: a `ShowAndTellModel`; its variables may change between calls.
    vocab: the `Vocabulary` that the model was trained with.
    beam_size: see `caption_generator.CaptionGenerator`; None: what the model's
      configuration says.
    max_caption_length: see `caption_generator.CaptionGenerator`.
    length_normalization_factor: as beam_size.
    separator: what stands between words, see `vocabulary_stamp.Stamp`.
    allow_unknown_word: whether captions may hold the unknown word, and ids that
      have no word; None: what the model's configuration says. Left out, they
      take nothing from the probabilities of other words, nor give to them.

  Raises:
    ValueError: the sizes make no sense, or the vocabulary is larger than the
      model's.
  """

  def __init__(self, model, vocab, beam_size=None, max_caption_length=20,
               length_normalization_factor=None, separator=' ',
               allow_unknown_word=None):
    vocab.check_fits_model(model.config.vocab_size)
    self._vocab = vocab
    self._separator = separator
    search = caption_generator.completed({
        'start_id': vocab.start_id, 'end_id': vocab.end_id,
        'beam_size': beam_size, 'max_caption_length': max_caption_length,
        'length_normalization_factor': length_normalization_factor,
        'allow_unknown_word': allow_unknown_word}, model.config)
    step_fn = model.inference_step
    if not search.pop('allow_unknown_word'):
      step_fn = self._known_words_only(step_fn, model.config.vocab_size)
    step = tf.function(
        step_fn, autograph=False, input_signature=[
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None, 2 * model.config.num_lstm_units])])
    self._generator = caption_generator.CaptionGenerator(
        lambda words, states: [x.numpy() for x in step(words, states)],
        **search)

    def search_graph(features):
      states = model.initial_state(features)
      captions = beam_search.beam_search(
          step_fn, states, **search)
      return states, captions, self._texts(captions)

    self._search = tf.function(
        search_graph, autograph=False, input_signature=[
            tf.TensorSpec([None, folded_inception.FEATURE_SIZE])])

  def caption(self, features):
    """Captions a batch of images.

    Args:
      features: float32 [batch, 2048], of Inception v3.

    Returns:
      For each image a list of `ScoredCaption`s, best first.
    """
    states, found, texts = self._search(features)
    results = []
    for state, ambiguous, *captions in zip(
        states, found.ambiguous.numpy(), texts.numpy(),
        found.log_probabilities.numpy(), found.lengths.numpy()):
      if ambiguous or not captions[-1].any():
        # Only the heap of the Python search knows the order of equal scores,
        # and the captions that no word may follow.
        searched, = self._generator.beam_search(state[tf.newaxis])
        results.append([
            ScoredCaption(self.text(c.sentence), c.logprob) for c in searched])
      else:
        results.append([
            ScoredCaption(text.decode(), float(log_probability))
            for text, log_probability, length in zip(*captions) if length])
    return results

  def text(self, sentence):
    """Joins the words of a list of ids, without <S> and a final </S>."""
    words = sentence[1:]
    if words and words[-1] == self._vocab.end_id:
      words = words[:-1]
    return self._separator.join(self._vocab.id_to_word(w) for w in words)

  def _known_words_only(self, step_fn, vocab_size):
    """Returns `step_fn`, with probability 0 for all ids but those of words."""
    known = tf.constant(
        [float(i < len(self._vocab) and i != self._vocab.unk_id)
         for i in range(vocab_size)])

    def step(words, states):
      softmax, states = step_fn(words, states)
      return softmax * known, states

    return step

  def _texts(self, captions):
    """`text` in the graph, for `beam_search.Captions`: string [batch, beam]."""
    # A model may have more ids than there are words.
    words = self._vocab.words + [self._vocab.id_to_word(len(self._vocab))]
    looked_up = tf.gather(
        words, tf.minimum(captions.sentences, len(self._vocab)))
    position = tf.range(captions.sentences.shape[2])
    shown = (position > 0) & (
        position < captions.lengths[:, :, tf.newaxis]) & (
            captions.sentences != self._vocab.end_id)
    return tf.strings.strip(tf.strings.reduce_join(
        tf.where(shown, self._separator + looked_up, ''), axis=2))


class Captioner:
  """A checkpoint and its vocabulary, ready to caption.

  Args:
    checkpoint_path: see `checkpoints.resolve`.
    vocab_file: the word_counts.txt that the model was trained with.
    beam_size: see `FeatureCaptioner`.
    max_caption_length: likewise.
    length_normalization_factor: likewise.
    precision: 'float32', or 'bfloat16' to compute Inception in that: faster
      where the processor has such instructions, with features good to 2 or 3
      digits.
    allow_unknown_word: see `FeatureCaptioner`.

  Attributes:
    vocab: the `Vocabulary`.
    global_step: of the checkpoint, an int.
    model: the `ShowAndTellModel`, without Inception.
    decoder: the `FeatureCaptioner`, for results of `encode`.

  Raises:
    ValueError: the checkpoint or the vocabulary cannot be used, or do not fit
      each other.
  """

  def __init__(self, checkpoint_path, vocab_file, beam_size=None,
               max_caption_length=20, length_normalization_factor=None,
               precision='float32', allow_unknown_word=None):
    self.vocab = vocabulary.Vocabulary(vocab_file)
    checkpoint = checkpoints.Checkpoint(checkpoint_path)
    config, _ = configuration.load(os.path.dirname(checkpoint.prefix))
    config = dataclasses.replace(config, **checkpoint.model_sizes())
    trained = vocabulary_stamp.of_checkpoint(checkpoint.prefix)
    vocabulary_stamp.check(
        [vocabulary_stamp.of_vocabulary(self.vocab), trained],
        'give the word_counts.txt that the model was trained with')
    self.model = show_and_tell_model.ShowAndTellModel(
        config, with_inception=False)
    self.decoder = FeatureCaptioner(
        self.model, self.vocab, beam_size, max_caption_length,
        length_normalization_factor,
        trained.stamp.separator if trained.stamp else ' ', allow_unknown_word)
    variables = self.model.named_variables
    if 'global_step' not in checkpoint.shapes:
      # A caption does not depend on it; some converters dropped it.
      del variables['global_step']
    checkpoint.restore(variables)
    self.global_step = checkpoint.global_step
    try:
      inception = folded_inception.fold(checkpoint.get, tf.as_dtype(precision))
      self._encode = tf.function(
          lambda images: folded_inception.encode(images, inception),
          autograph=False, input_signature=[tf.TensorSpec(
              [None, config.image_height, config.image_width, 3])])
      self._encode.get_concrete_function()
    except checkpoints.CheckpointError:
      raise
    except ValueError as e:
      raise ValueError(
          f'checkpoint {checkpoint.prefix}: the shapes of its InceptionV3/ '
          f'variables are not those of Inception v3 '
          f'({str(e).splitlines()[0]}); give another checkpoint') from e
    self._process = tf.function(
        lambda encoded: image_processing.process_image(  # pylint: disable=g-long-lambda
            encoded, height=config.image_height, width=config.image_width),
        input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    # Now, lest each of the threads that decode does so.
    self._process.get_concrete_function()

  def decode(self, encoded_image):
    """Decodes the bytes of a JPEG, PNG or GIF file; any thread may call it.

    Returns:
      float32 [height, width, 3], what `encode` and `caption` take.

    Raises:
      ValueError: the bytes are no such image, or damaged.
    """
    if not encoded_image:
      raise ValueError('the file is empty')
    try:
      return self._process(encoded_image)
    except tf.errors.InvalidArgumentError as e:
      raise ValueError('not a JPEG, PNG or GIF image, or damaged') from e

  def encode(self, images):
    """Encodes a batch of images with Inception v3.

    Args:
      images: list of results of `decode`.

    Returns:
      float32 [batch, 2048].
    """
    return self._encode(tf.stack(images))

  def caption(self, images):
    """Captions a batch of images.

    Args:
      images: list of results of `decode`.

    Returns:
      For each image a list of `ScoredCaption`s, best first.
    """
    return self.decoder.caption(self.encode(images))
