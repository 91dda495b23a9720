# SPDX-License-Identifier: Apache-2.0
"""Images or their features in, captions out."""

import contextlib
import dataclasses
import math
import os
import threading

import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt.runtime import quiet_tensorflow
from im2txt import show_and_tell_model
from im2txt.text import vocabulary_stamp
from im2txt.data import image_formats
from im2txt.inference_utils import beam_search
from im2txt.inference_utils import caption_generator
from im2txt.text import vocabulary
from im2txt.ops import folded_inception
from im2txt.ops import image_processing

# Images that take more bytes than this are decoded one at a time.
_LARGE = 150_000_000


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


class ImageDecoder:
  """Makes of image files what a model takes.

  Args:
    height: pixels, of what is made.
    width: likewise.
  """

  def __init__(self, height, width):
    size = dict(height=height, width=width)

    def process_decoded(image):
      return image_processing.crop_image(
          image_processing.resize_image(image), **size)

    def process(encoded, orientation, ratio):
      image = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
      return process_decoded(image_processing.turn(image, orientation))

    # A graph for each orientation and ratio.
    self._process = tf.function(process, autograph=False)
    # Now, lest each of the threads that decode does so.
    self._process.get_concrete_function(tf.TensorSpec([], tf.string), 1, 1)
    self._process_decoded = tf.function(
        process_decoded, autograph=False,
        input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    self._large = threading.Lock()

  def decode(self, encoded_image, exif_orientation=True):
    """Decodes the bytes of an image file; any thread may call it.

    The kinds are `image_formats.READ`; of an animation the first frame is
    taken, transparent pixels become white.

    Args:
      encoded_image: bytes of the file.
      exif_orientation: whether the image is turned as its EXIF data say. In
        2016 it was not, nor were the images that the model was trained with.

    Returns:
      float32 [height, width, 3], what `Captioner` takes.

    Raises:
      TypeError: it is no bytes, but the name of a file, say.
      ValueError: the bytes are no such image, damaged, or of an image that
        takes too much memory.
    """
    if not isinstance(encoded_image, (bytes, bytearray, memoryview)):
      raise TypeError(
          'decode takes the bytes of an image file, not '
          f'{encoded_image!r:.80}: open the file in mode "rb" and give what '
          'read() returns')
    encoded_image = bytes(encoded_image)
    header = image_formats.read_header(encoded_image)
    ratio = 1
    if not exif_orientation:
      header = header._replace(orientation=1)
    elif header.orientation > 1:
      # There are copies while it is turned.
      header = header._replace(bytes_per_pixel=header.bytes_per_pixel + 6)
    whole = header
    while header.is_sequential and ratio < 8 and (
        header.width * header.height > header.most_pixels):
      # No model looks this closely.
      ratio *= 2
      header = header._replace(width=-(-whole.width // ratio),
                               height=-(-whole.height // ratio))
    header.check_size()
    with self._large if header.num_bytes > _LARGE else contextlib.nullcontext():
      try:
        return self._decode(encoded_image, header, ratio)
      except tf.errors.InvalidArgumentError as e:
        raise ValueError(f'damaged {header.kind} image, or of a rare variant '
                         'that is not read') from e
      except (MemoryError, tf.errors.ResourceExhaustedError) as e:
        raise ValueError(
            f'too little memory to decode {whole.width} x {whole.height} '
            'pixels: make the image smaller') from e

  def _decode(self, encoded, header, ratio):
    """Decodes an image whose size is checked, a JPEG at 1/ratio of it."""
    if header.kind in image_formats.READ_BY_PILLOW:
      image = image_formats.decode_with_pillow(encoded, header.kind)
    elif header.has_alpha:
      # As a view: numpy() would copy it.
      image = image_formats.over_white(
          np.asarray(memoryview(tf.io.decode_png(encoded, channels=4))))
    else:
      frame = image_formats.first_frame(encoded, header)
      return self._process(tf.constant(frame), header.orientation, ratio)
    return self._process_decoded(
        image_processing.turn(image, header.orientation))


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
          f'({quiet_tensorflow.reason(e)}); give another checkpoint') from e
    self._images = ImageDecoder(config.image_height, config.image_width)

  def decode(self, encoded_image, exif_orientation=True):
    """See `ImageDecoder.decode`; `encode` and `caption` take the result."""
    return self._images.decode(encoded_image, exif_orientation)

  def encode(self, images):
    """Encodes a batch of images with Inception v3.

    Args:
      images: list of results of `decode`.

    Returns:
      float32 [batch, 2048].

    Raises:
      TypeError: an image is the name or the bytes of a file.
    """
    if isinstance(images, (str, bytes)) or any(
        isinstance(image, (str, bytes, os.PathLike)) for image in images):
      raise TypeError('encode and caption take a list of results of decode, '
                      f'not {images!r:.80}')
    return self._encode(tf.stack(images))

  def caption(self, images):
    """Captions a batch of images.

    Args:
      images: list of results of `decode`.

    Returns:
      For each image a list of `ScoredCaption`s, best first.

    Raises:
      TypeError: see `encode`.
    """
    return self.decoder.caption(self.encode(images))
