# SPDX-License-Identifier: Apache-2.0
"""Images or their features in, captions out."""

import contextlib
import dataclasses
import math
import os
import threading

from absl import logging
import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import configuration
from im2txt import show_and_tell_model
from im2txt.checkpoints import encoder_stamp
from im2txt.data import image_formats
from im2txt.inference_utils import beam_search
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import ensemble
from im2txt.inference_utils import sampling
from im2txt.inference_utils import search_config
from im2txt.ops import folded_inception
from im2txt.ops import image_processing
from im2txt.runtime import quiet_tensorflow
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

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
    model: a `ShowAndTellModel` or an `ensemble.Ensemble`; its variables may
      change between calls.
    vocab: the `Vocabulary` that the model was trained with.
    search: a `SearchConfig`.
    separator: what stands between words, see `vocabulary_stamp.Stamp`.

  Attributes:
    search: the `SearchConfig`, completed by the model's configuration.

  Raises:
    ValueError: the settings make no sense, or the vocabulary is larger than the
      model's.
  """

  def __init__(
    self, model, vocab, search=search_config.SearchConfig(), separator=' '
  ):
    vocab.check_fits_model(model.config.vocab_size)
    self._model = model
    self._vocab = vocab
    self._separator = separator
    self.search = search = search.completed(model.config)
    step_fn = model.inference_step
    allowed = decoding_rules.allowed_words(
      search, vocab, model.config.vocab_size
    )
    if allowed is not None:
      step_fn = _with_allowed_words_only(step_fn, allowed)
    step = tf.function(
      step_fn,
      autograph=False,
      input_signature=[
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, model.state_size]),
      ],
    )
    self._generator = caption_generator.CaptionGenerator(
      lambda words, states: [x.numpy() for x in step(words, states)],
      vocab.start_id,
      vocab.end_id,
      search,
    )
    required = decoding_rules.required_ids(search, vocab)
    options = dict(
      start_id=vocab.start_id,
      end_id=vocab.end_id,
      search=search,
      rules=decoding_rules.rules(search, vocab.end_id, required),
    )

    def search_graph(features, first_image):
      states = model.initial_state(features)
      if search.sample:
        captions = sampling.sample(
          step_fn, states, first_image=first_image, **options
        )
      else:
        captions = beam_search.beam_search(
          step_fn, states, required_ids=required, **options
        )
      return states, captions, self._texts(captions)

    self._search = tf.function(
      search_graph,
      autograph=False,
      input_signature=[
        tf.TensorSpec([None, model.feature_size]),
        tf.TensorSpec([], tf.int64),
      ],
    )

  def caption(self, features, first_image=0):
    """Captions a batch of images.

    Args:
      features: float32 [batch, feature_size of the model], of Inception v3.
      first_image: number of images captioned before these; a sample depends on
        it, and nothing else.

    Returns:
      For each image a list of `ScoredCaption`s, best first.
    """
    states, found, texts = self._search(features, first_image)
    results = []
    for state, ambiguous, *captions in zip(
      states,
      found.ambiguous.numpy(),
      texts.numpy(),
      found.log_probabilities.numpy(),
      found.lengths.numpy(),
    ):
      if ambiguous:
        # Only the heap of the Python search knows the order of equal scores.
        (searched,) = self._generator.beam_search(state[tf.newaxis])
        results.append(
          [ScoredCaption(self.text(c.sentence), c.logprob) for c in searched]
        )
      else:
        results.append(
          [
            ScoredCaption(text.decode(), float(log_probability))
            for text, log_probability, length in zip(*captions)
            if length
          ]
        )
    return results

  def with_search(self, search):
    """Returns another captioner of the same model, with a `SearchConfig`."""
    return FeatureCaptioner(self._model, self._vocab, search, self._separator)

  def text(self, sentence):
    """Joins the words of a list of ids, without <S> and a final </S>."""
    words = sentence[1:]
    if words and words[-1] == self._vocab.end_id:
      words = words[:-1]
    return self._separator.join(self._vocab.id_to_word(w) for w in words)

  def _texts(self, captions):
    """`text` in the graph, for `beam_search.Captions`: string [batch, beam]."""
    # A model may have more ids than there are words.
    words = self._vocab.words + [self._vocab.id_to_word(len(self._vocab))]
    looked_up = tf.gather(
      words, tf.minimum(captions.sentences, len(self._vocab))
    )
    position = tf.range(captions.sentences.shape[2])
    shown = (
      (position > 0)
      & (position < captions.lengths[:, :, tf.newaxis])
      & (captions.sentences != self._vocab.end_id)
    )
    return tf.strings.strip(
      tf.strings.reduce_join(
        tf.where(shown, self._separator + looked_up, ''), axis=2
      )
    )


def _with_allowed_words_only(step_fn, allowed):
  """Returns `step_fn`, its probabilities times `allowed` [vocab_size]."""

  def step(words, states):
    softmax, states = step_fn(words, states)
    return softmax * allowed, states

  return step


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
        image_processing.resize_image(image), **size
      )

    def process(encoded, orientation, ratio):
      image = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio)
      return process_decoded(image_processing.turn(image, orientation))

    # A graph for each orientation and ratio.
    self._process = tf.function(process, autograph=False)
    # Now, lest each of the threads that decode does so.
    self._process.get_concrete_function(tf.TensorSpec([], tf.string), 1, 1)
    self._process_decoded = tf.function(
      process_decoded,
      autograph=False,
      input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
    )
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
        'read() returns'
      )
    encoded_image = bytes(encoded_image)
    header = image_formats.read_header(encoded_image)
    ratio = 1
    if not exif_orientation:
      header = header._replace(orientation=1)
    elif header.orientation > 1:
      # There are copies while it is turned.
      header = header._replace(bytes_per_pixel=header.bytes_per_pixel + 6)
    whole = header
    while (
      header.is_sequential
      and ratio < 8
      and (header.width * header.height > header.most_pixels)
    ):
      # No model looks this closely.
      ratio *= 2
      header = header._replace(
        width=-(-whole.width // ratio), height=-(-whole.height // ratio)
      )
    header.check_size()
    with self._large if header.num_bytes > _LARGE else contextlib.nullcontext():
      try:
        return self._decode(encoded_image, header, ratio)
      except tf.errors.InvalidArgumentError as e:
        raise ValueError(
          f'damaged {header.kind} image, or of a rare variant that is not read'
        ) from e
      except (MemoryError, tf.errors.ResourceExhaustedError) as e:
        raise ValueError(
          f'too little memory to decode {whole.width} x {whole.height} '
          'pixels: make the image smaller'
        ) from e

  def _decode(self, encoded, header, ratio):
    """Decodes an image whose size is checked, a JPEG at 1/ratio of it."""
    if header.kind in image_formats.READ_BY_PILLOW:
      image = image_formats.decode_with_pillow(encoded, header.kind)
    elif header.has_alpha:
      # As a view: numpy() would copy it.
      image = image_formats.over_white(
        np.asarray(memoryview(tf.io.decode_png(encoded, channels=4)))
      )
    else:
      frame = image_formats.first_frame(encoded, header)
      return self._process(tf.constant(frame), header.orientation, ratio)
    return self._process_decoded(
      image_processing.turn(image, header.orientation)
    )


class _Member:
  """A checkpoint of an ensemble, or the only one.

  Args:
    path: see `checkpoints.resolve`.

  Attributes:
    prefix: of the checkpoint.
    checkpoint: the `checkpoints.Checkpoint`.
    model: the `ShowAndTellModel`, without Inception.
    vocabulary: the `vocabulary_stamp.Source` of its vocabulary.
  """

  def __init__(self, path):
    self.checkpoint = checkpoints.Checkpoint(path)
    self.prefix = self.checkpoint.prefix
    config, _ = configuration.load(os.path.dirname(self.prefix))
    config = dataclasses.replace(config, **self.checkpoint.model_sizes())
    self.vocabulary = vocabulary_stamp.of_checkpoint(self.prefix)
    self.model = show_and_tell_model.ShowAndTellModel(
      config, with_inception=False
    )

  def restore(self):
    """Fills the model's variables from the checkpoint."""
    variables = self.model.named_variables
    if 'global_step' not in self.checkpoint.shapes:
      # A caption does not depend on it; some converters dropped it.
      del variables['global_step']
    self.checkpoint.restore(variables)

  def encoder_fingerprint(self):
    """Returns what tells its Inception v3 from others, a str."""
    return encoder_stamp.fingerprint(
      {name: self.checkpoint.get(name) for name in folded_inception.variables()}
    )

  def encoder(self, dtype):
    """Returns its Inception v3: images [batch, height, width, 3] -> features.

    Raises:
      ValueError: the checkpoint's Inception v3 cannot be used.
    """
    config = self.model.config
    try:
      inception = folded_inception.fold(self.checkpoint.get, dtype)
      encode = tf.function(
        lambda images: folded_inception.encode(images, inception),
        autograph=False,
        input_signature=[
          tf.TensorSpec([None, config.image_height, config.image_width, 3])
        ],
      )
      encode.get_concrete_function()
      return encode
    except checkpoints.CheckpointError:
      raise
    except ValueError as e:
      raise ValueError(
        f'checkpoint {self.prefix}: the shapes of its InceptionV3/ '
        f'variables are not those of Inception v3 '
        f'({quiet_tensorflow.reason(e)}); give another checkpoint'
      ) from e


def _check_of_one_kind(members):
  """Checks that models can write captions together.

  Args:
    members: list of `_Member`.

  Raises:
    ValueError: two differ in vocabulary or in the size of images; both are
      named.
  """
  vocabulary_stamp.check(
    [member.vocabulary for member in members],
    'give --checkpoint_path checkpoints of one vocabulary',
  )
  for member in members[1:]:
    for name in ('vocab_size', 'image_height', 'image_width'):
      sizes = [getattr(m.model.config, name) for m in (members[0], member)]
      if sizes[0] != sizes[1]:
        raise ValueError(
          f'checkpoint {members[0].prefix} has {name}={sizes[0]}, and '
          f'checkpoint {member.prefix} {name}={sizes[1]}: give '
          '--checkpoint_path checkpoints of one vocabulary and image size'
        )


class Captioner:
  """A checkpoint or several, and their vocabulary, ready to caption.

  Several are an ensemble: at each word their probabilities are averaged. They
  may differ in all but the vocabulary and the size of images; those with equal
  encoders share one.

  Args:
    checkpoint_path: see `checkpoints.split_paths`; or a list of paths.
    vocab_file: the word_counts.txt that the model was trained with.
    search: a `SearchConfig`.
    precision: 'float32', or 'bfloat16' to compute Inception in that: faster
      where the processor has such instructions, with features good to 2 or 3
      digits.

  Attributes:
    vocab: the `Vocabulary`.
    prefixes: of the checkpoints, a list of str.
    global_step: of the (first) checkpoint, an int.
    model: the `ShowAndTellModel`, without Inception, or the `Ensemble`.
    decoder: the `FeatureCaptioner`, for results of `encode`.

  Raises:
    ValueError: the checkpoint or the vocabulary cannot be used, or do not fit
      each other.
  """

  def __init__(
    self,
    checkpoint_path,
    vocab_file,
    search=search_config.SearchConfig(),
    precision='float32',
  ):
    self.vocab = vocabulary.Vocabulary(vocab_file)
    if isinstance(checkpoint_path, str):
      checkpoint_path = checkpoints.split_paths(checkpoint_path)
    members = [_Member(path) for path in checkpoint_path]
    if len(members) > 1:
      _check_of_one_kind(members)
    self.prefixes = [member.prefix for member in members]
    trained = [member.vocabulary for member in members]
    vocabulary_stamp.check(
      [vocabulary_stamp.of_vocabulary(self.vocab), *trained],
      'give the word_counts.txt that the model was trained with',
    )
    first_of = members
    self.model = members[0].model
    if len(members) > 1:
      fingerprints = [member.encoder_fingerprint() for member in members]
      distinct = list(dict.fromkeys(fingerprints))
      first_of = [members[fingerprints.index(f)] for f in distinct]
      self.model = ensemble.Ensemble(
        [member.model for member in members],
        [distinct.index(f) for f in fingerprints],
      )
    stamp = vocabulary_stamp.first_known(trained)
    self.decoder = FeatureCaptioner(
      self.model, self.vocab, search, stamp.separator if stamp else ' '
    )
    for member in members:
      member.restore()
    self.global_step = members[0].checkpoint.global_step
    self._encoders = [
      member.encoder(tf.as_dtype(precision)) for member in first_of
    ]
    config = members[0].model.config
    self._images = ImageDecoder(config.image_height, config.image_width)

  def decode(self, encoded_image, exif_orientation=True):
    """See `ImageDecoder.decode`; `encode` and `caption` take the result."""
    return self._images.decode(encoded_image, exif_orientation)

  def encode(self, images):
    """Encodes a batch of images with Inception v3.

    Args:
      images: list of results of `decode`.

    Returns:
      float32 [batch, 2048 for each encoder].

    Raises:
      TypeError: an image is the name or the bytes of a file.
    """
    if isinstance(images, (str, bytes)) or any(
      isinstance(image, (str, bytes, os.PathLike)) for image in images
    ):
      raise TypeError(
        'encode and caption take a list of results of decode, '
        f'not {images!r:.80}'
      )
    images = tf.stack(images)
    if len(self._encoders) == 1:
      return self._encoders[0](images)
    return tf.concat([encode(images) for encode in self._encoders], axis=1)

  def caption(self, images, first_image=0):
    """Captions a batch of images.

    Args:
      images: list of results of `decode`.
      first_image: see `FeatureCaptioner.caption`.

    Returns:
      For each image a list of `ScoredCaption`s, best first.

    Raises:
      TypeError: see `encode`.
    """
    return self.decoder.caption(self.encode(images), first_image)


def encode_batches(captioner, batches, progress):
  """Yields (image ids, features) of batches of images, as training saw them.

  Images that cannot be decoded are left out with a warning.

  Args:
    captioner: a `Captioner`.
    batches: iterable of lists of (image id, bytes of the file).
    progress: its `update` is called with the number of images of each batch
      when what was yielded has been used.

  Yields:
    list of image ids, float32 array as `Captioner.encode` returns.
  """
  for batch in batches:
    images = {}
    for image_id, data in batch:
      try:
        images[image_id] = captioner.decode(data, exif_orientation=False)
      except ValueError as error:
        logging.warning('image %d left out: %s', image_id, error)
    if images:
      yield list(images), captioner.encode(list(images.values())).numpy()
    progress.update(len(batch))
