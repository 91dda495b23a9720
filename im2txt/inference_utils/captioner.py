# SPDX-License-Identifier: Apache-2.0
"""Captions images, or features of images, with a trained model."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import copy
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from im2txt import checkpoints
from im2txt import show_and_tell_model
from im2txt.checkpoints import confidence_stamp
from im2txt.checkpoints import encoder_stamp
from im2txt.inference_utils import beam_search
from im2txt.inference_utils import caption_generator
from im2txt.inference_utils import confidence as confidence_lib
from im2txt.inference_utils import decoding_rules
from im2txt.inference_utils import ensemble
from im2txt.inference_utils import image_decoder
from im2txt.inference_utils import image_encoder
from im2txt.inference_utils import likelihood
from im2txt.inference_utils import sampling
from im2txt.inference_utils import search_config
from im2txt.runtime import distribution
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp


class StepsNotKept(ValueError):
  """The settings are of a search whose steps are not kept."""


class Word(NamedTuple):
  """A word of a caption.

  Attributes:
    word: the word; </S> at the end of a caption.
    log_probability: of the word after those before it, natural logarithm.
  """

  word: str
  log_probability: float


@dataclasses.dataclass(frozen=True)
class ScoredCaption:
  """A caption in words.

  Attributes:
    text: words without <S> and </S>, joined by the separator of the tokenizer.
    log_probability: natural logarithm of the probability.
    confidence: how probable it is that the caption would score well, see
      `confidence`; None where that was not fitted for the checkpoint.
    words: its words, whose log probabilities sum to its own; None unless they
      were asked for.
  """

  text: str
  log_probability: float
  confidence: float | None = None
  words: tuple[Word, ...] | None = None

  @property
  def probability(self) -> float:
    return math.exp(self.log_probability)

  def as_dict(self) -> dict[str, Any]:
    """Returns what JSON tells of it, {name: value}."""
    return {
      'caption': self.text,
      'probability': self.probability,
      'log_probability': self.log_probability,
      **({} if self.confidence is None else {'confidence': self.confidence}),
      **({} if self.words is None else {'words': self._words_as_dicts()}),
    }

  def _words_as_dicts(self) -> list[dict[str, Any]]:
    return [
      {'word': word, 'probability': math.exp(log_probability)}
      for word, log_probability in self.words or ()
    ]


class Sentence(NamedTuple):
  """A caption that was found.

  Attributes:
    text: see `ScoredCaption`.
    words: ids, <S> first.
    log_probability: see `ScoredCaption`.
  """

  text: str
  words: list[int]
  log_probability: float


class FeatureCaptioner:
  """Captions images from their features.

  Args:
    model: its variables may change between calls.
    vocab: the vocabulary that the model was trained with.
    search: settings of the search.
    separator: between words, see `vocabulary_stamp.Stamp`.
    confidence: what was fitted for the model, if anything.
    replicas: share the images. The model is of their scope.

  Attributes:
    search: settings, completed by the configuration of the model.
    confidence: as above.
    separator: as above.
    step_fn: the step of the model, where excluded words have probability 0.

  Raises:
    ValueError: settings are invalid, or the vocabulary has more words than the
      model.
  """

  def __init__(
    self,
    model: ensemble.Model,
    vocab: vocabulary.Vocabulary,
    search: search_config.SearchConfig = search_config.SearchConfig(),
    separator: str = ' ',
    confidence: confidence_stamp.Confidence | None = None,
    replicas: distribution.Replicas = distribution.ALONE,
  ) -> None:
    vocab.check_fits_model(model.config.vocab_size)
    self._model = model
    self._vocab = vocab
    self.separator = separator
    self.confidence = confidence
    if confidence:
      self._scorer = confidence_lib.Scorer(model, confidence.mean_features)
    self._replicas = replicas
    self._likelihood = likelihood.Likelihood(model, replicas=replicas)
    self.search = search = search.completed(model.config)
    self.step_fn: decoding_rules.StepFn = model.inference_step
    allowed = decoding_rules.allowed_words(
      search, vocab, model.config.vocab_size
    )
    if allowed is not None:
      self.step_fn = _with_allowed_words_only(self.step_fn, allowed)
    step = tf.function(
      self.step_fn,
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
    self._required = decoding_rules.required_ids(search, vocab)
    self._rules = decoding_rules.rules(search, vocab.end_id, self._required)
    self._search = replicas.by_rows(
      lambda features, numbers: self.search_in_graph(features, numbers[0]),
      input_signature=[
        tf.TensorSpec([None, model.feature_size]),
        tf.TensorSpec([None], tf.int64),
      ],
    )

  def search_in_graph(
    self,
    features: tf.Tensor,
    first_image: int | tf.Tensor = 0,
    mark_ties: bool = True,
  ) -> tuple[tf.Tensor, beam_search.Captions, tf.Tensor]:
    """Searches captions for a batch of images; to be traced.

    Args:
      features: see `caption`.
      first_image: see `caption`.
      mark_ties: see `beam_search.beam_search`.

    Returns:
      (float32 [batch, state_size], the states after the images; the captions;
      string [batch, beam_size], their words, '' where fewer were found).
    """
    states = self._model.initial_state(features)
    if self.search.sample:
      captions = sampling.sample(
        self.step_fn,
        states,
        self._vocab.start_id,
        self._vocab.end_id,
        self.search,
        self._rules,
        first_image,
      )
    else:
      captions = beam_search.beam_search(
        self.step_fn,
        states,
        self._vocab.start_id,
        self._vocab.end_id,
        self.search,
        self._rules,
        self._required,
        mark_ties,
      )
    return states, captions, self._texts(captions)

  def caption(
    self,
    features: np.ndarray | tf.Tensor,
    first_image: int = 0,
    word_probabilities: bool = False,
  ) -> list[list[ScoredCaption]]:
    """Captions a batch of images.

    Args:
      features: float32 [batch, feature_size of the model], of Inception v3.
      first_image: number of images captioned before these. Only a sample
        depends on it.
      word_probabilities: whether captions have `words`.

    Returns:
      For each image its captions, best first.
    """
    found = self.sentences(features, first_image)
    every = [sentence for sentences in found for sentence in sentences]
    confidences: Iterable[float | None] = itertools.repeat(None)
    if self.confidence:
      confidences = self.confidence.of(
        self._scorer(
          [sentence.words for sentence in every],
          [sentence.log_probability for sentence in every],
        )
      ).tolist()
    words: Iterable[tuple[Word, ...] | None] = itertools.repeat(None)
    if word_probabilities:
      words = self._words(
        np.repeat(features, [len(sentences) for sentences in found], axis=0),
        every,
      )
    scored = (
      ScoredCaption(
        sentence.text, sentence.log_probability, confidence, of_words
      )
      for sentence, confidence, of_words in zip(every, confidences, words)
    )
    return [list(itertools.islice(scored, len(of))) for of in found]

  def _words(
    self, features: np.ndarray, sentences: Sequence[Sentence]
  ) -> Iterator[tuple[Word, ...]]:
    """Yields the words of each sentence, with their log probabilities.

    Args:
      features: float32 [sentences, feature_size of the model].
      sentences: the sentences.
    """
    if not sentences:
      return
    entropies = iter(
      self._likelihood.cross_entropies(
        features, [sentence.words for sentence in sentences]
      ).tolist()
    )
    for sentence in sentences:
      yield tuple(
        Word(self._vocab.id_to_word(word), -next(entropies))
        for word in sentence.words[1:]
      )

  def confidences_in_graph(self, captions: beam_search.Captions) -> tf.Tensor:
    """Returns the confidences in captions; to be traced.

    Args:
      captions: of `search_in_graph`. The captioner has a `confidence`.

    Returns:
      float64 [batch, beam_size], 0 where fewer captions were found.
    """
    assert self.confidence
    time = captions.sentences.shape[2]
    logits = self.confidence.logits(
      self._scorer.in_graph(
        tf.reshape(captions.sentences, [-1, time]),
        tf.reshape(captions.lengths, [-1]),
        tf.reshape(captions.log_probabilities, [-1]),
      )
    )
    return tf.where(
      captions.lengths > 0,
      tf.reshape(tf.sigmoid(logits), tf.shape(captions.lengths)),
      0.0,
    )

  def sentences(
    self, features: np.ndarray | tf.Tensor, first_image: int = 0
  ) -> list[list[Sentence]]:
    """Like `caption`, with the ids of the words.

    Args: see `caption`.

    Returns:
      For each image its captions, best first.
    """
    states, found, texts = self._search(
      features, np.arange(first_image, first_image + len(features))
    )
    results = []
    for state, ambiguous, *captions in zip(
      states,
      found.ambiguous.numpy(),
      texts.numpy(),
      found.sentences.numpy(),
      found.log_probabilities.numpy(),
      found.lengths.numpy(),
    ):
      if ambiguous:
        # The Python search orders equal scores as in 2016.
        (searched,) = self._generator.beam_search(state[tf.newaxis])
        results.append(
          [
            Sentence(self.text(c.sentence), c.sentence, c.logprob)
            for c in searched
          ]
        )
      else:
        results.append(
          [
            Sentence(
              text.decode(), words[:length].tolist(), float(log_probability)
            )
            for text, words, log_probability, length in zip(*captions)
            if length
          ]
        )
    return results

  def search_step_by_step(
    self, features: tf.Tensor, on_step: caption_generator.OnStep
  ) -> list[caption_generator.Caption]:
    """Captions an image by the Python search, and shows its steps.

    Args:
      features: float32 [1, feature_size of the model].
      on_step: see `CaptionGenerator.beam_search`.

    Returns:
      The captions, best first.

    Raises:
      StepsNotKept: the settings are none that this search knows.
    """
    if not self.search.is_as_in_2016:
      raise StepsNotKept(
        'the steps are shown of a search as in 2016, without sampling, groups, '
        'rules of repetition, and required words'
      )
    (captions,) = self._generator.beam_search(
      self._model.initial_state(features), on_step
    )
    return captions

  def with_search(
    self, search: search_config.SearchConfig
  ) -> 'FeatureCaptioner':
    """Returns another captioner of the same model, with other settings."""
    return FeatureCaptioner(
      self._model,
      self._vocab,
      search,
      self.separator,
      self.confidence,
      self._replicas,
    )

  def text(self, sentence: Sequence[int]) -> str:
    """Returns the words of a list of ids, without <S> and a final </S>."""
    words = sentence[1:]
    if words and words[-1] == self._vocab.end_id:
      words = words[:-1]
    return self.separator.join(self._vocab.id_to_word(w) for w in words)

  def _texts(self, captions: beam_search.Captions) -> tf.Tensor:
    """Like `text`, in the graph; returns string [batch, beam]."""
    # A model may have more ids than the vocabulary has words.
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
        tf.where(shown, self.separator + looked_up, ''), axis=2
      )
    )


def _with_allowed_words_only(
  step_fn: decoding_rules.StepFn, allowed: np.ndarray
) -> decoding_rules.StepFn:
  """Returns `step_fn` with probabilities times `allowed`, [vocab_size]."""

  def step(words: tf.Tensor, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    softmax, states = step_fn(words, states)
    return softmax * allowed, states

  return step


class _Member:
  """One of the checkpoints of a `Captioner`.

  Args:
    path: see `checkpoints.resolve`.

  Attributes:
    prefix: of the checkpoint.
    checkpoint: the checkpoint.
    model: without Inception.
    vocabulary: tells which vocabulary the model was trained with.
  """

  def __init__(self, path: str) -> None:
    trained = checkpoints.load(path)
    self.checkpoint = trained.checkpoint
    self.prefix = trained.prefix
    self.vocabulary = trained.vocabulary
    self.model = show_and_tell_model.ShowAndTellModel(
      trained.model_config, with_inception=False
    )

  def restore(self) -> None:
    """Restores the variables of the model from the checkpoint."""
    variables = self.model.named_variables
    if 'global_step' not in self.checkpoint.shapes:
      # Captions do not depend on the step, and some converters dropped it.
      del variables['global_step']
    self.checkpoint.restore(variables)

  @functools.cached_property
  def encoder_fingerprint(self) -> str:
    """The fingerprint of its Inception v3."""
    return image_encoder.fingerprint(self.checkpoint)

  @functools.cached_property
  def decoder_fingerprint(self) -> str:
    """The fingerprint of the rest of the model."""
    return encoder_stamp.fingerprint(
      {
        name: value
        for name, value in self.model.named_variables.items()
        if name != 'global_step'
      }
    )


def _check_of_one_kind(members: Sequence[_Member]) -> None:
  """Checks that models can form an ensemble.

  Args:
    members: of the ensemble.

  Raises:
    ValueError: two differ in vocabulary or in the size of images. The message
      names both.
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
  """Captions images with a checkpoint, or with an ensemble of several.

  An ensemble averages the probabilities of its members for each word. The
  members must have the same vocabulary and size of images. Those with equal
  encoders share one.

  Args:
    checkpoint_path: see `checkpoints.split_paths`; or a list of paths.
    vocab_file: the word_counts.txt that the model was trained with.
    search: settings of the search.
    precision: of Inception, one of `model_flags.PRECISIONS`. bfloat16 is
      faster if the processor supports it, and features have 2 or 3 correct
      digits. int8 is faster still, with 1 or 2.
    replicas: share the images of a batch.

  Attributes:
    vocab: the vocabulary.
    tokenizer: name of the tokenizer that split the captions of the training.
    prefixes: of the checkpoints.
    global_step: of the first checkpoint.
    model: a model without Inception, or an ensemble.
    decoder: captions the results of `encode`.
    precision: see above.
    encoders: an `ImageEncoder` of each Inception v3.

  Raises:
    ValueError: the checkpoint or the vocabulary cannot be used, or they do not
      fit each other.
  """

  def __init__(
    self,
    checkpoint_path: str | Sequence[str],
    vocab_file: str,
    search: search_config.SearchConfig = search_config.SearchConfig(),
    precision: str = 'float32',
    replicas: distribution.Replicas = distribution.ALONE,
  ) -> None:
    self.precision = precision
    self.vocab = vocabulary.Vocabulary(vocab_file)
    if isinstance(checkpoint_path, str):
      checkpoint_path = checkpoints.split_paths(checkpoint_path)
    with replicas.scope():
      members = [_Member(path) for path in checkpoint_path]
    if len(members) > 1:
      _check_of_one_kind(members)
    self._members = members
    self.prefixes = [member.prefix for member in members]
    trained = [member.vocabulary for member in members]
    vocabulary_stamp.check(
      [vocabulary_stamp.of_vocabulary(self.vocab), *trained],
      'give the word_counts.txt that the model was trained with',
    )
    first_of = members
    self.model: ensemble.Model = members[0].model
    if len(members) > 1:
      fingerprints = [member.encoder_fingerprint for member in members]
      distinct = list(dict.fromkeys(fingerprints))
      first_of = [members[fingerprints.index(f)] for f in distinct]
      self.model = ensemble.Ensemble(
        [member.model for member in members],
        [distinct.index(f) for f in fingerprints],
      )
    stamp = vocabulary_stamp.first_known(trained)
    self.tokenizer = stamp.tokenizer if stamp else 'nltk'
    confidence = None
    if len(members) == 1:
      confidence = confidence_stamp.load(
        os.path.dirname(self.prefixes[0]), members[0].checkpoint.global_step
      )
    self.decoder = FeatureCaptioner(
      self.model,
      self.vocab,
      search,
      stamp.separator if stamp else ' ',
      confidence,
      replicas,
    )
    for member in members:
      member.restore()
    self.global_step = members[0].checkpoint.global_step
    self.encoders = [
      image_encoder.ImageEncoder(
        member.prefix,
        member.checkpoint,
        member.model.config,
        precision,
        replicas,
      )
      for member in first_of
    ]
    config = members[0].model.config
    self._images = image_decoder.ImageDecoder(
      config.image_height, config.image_width
    )

  def check_min_confidence(self, min_confidence: float) -> None:
    """Raises ValueError if captions have no confidence to hold against this."""
    if min_confidence and not self.decoder.confidence:
      raise ValueError(
        f'--min_confidence={min_confidence:g} needs a confidence, and there is '
        f'none for --checkpoint_path={",".join(self.prefixes)}: run '
        'fit_confidence'
      )

  @property
  def encoder_fingerprints(self) -> list[str]:
    """The fingerprints of its encoders, in the order of `encode`."""
    return list(dict.fromkeys(m.encoder_fingerprint for m in self._members))

  @property
  def encoder_fingerprint(self) -> str:
    """Tells the features of images by this model from those by another.

    It is 16 hexadecimal digits.
    """
    config = self._members[0].model.config
    return digest(
      self.precision,
      [config.image_height, config.image_width],
      self.encoder_fingerprints,
    )

  @property
  def fingerprint(self) -> str:
    """Tells the captions by this model and search from those by another.

    It is 16 hexadecimal digits.
    """
    confidence = self.decoder.confidence
    return digest(
      self.encoder_fingerprint,
      [member.decoder_fingerprint for member in self._members],
      self.vocab.fingerprint,
      self.decoder.search.as_dict(),
      dataclasses.asdict(confidence) if confidence else None,
    )

  def with_search(self, search: search_config.SearchConfig) -> 'Captioner':
    """Returns another captioner of the same model, with a `SearchConfig`."""
    other = copy.copy(self)
    other.decoder = self.decoder.with_search(search)
    return other

  def decode(
    self, encoded_image: bytes, exif_orientation: bool = True
  ) -> tf.Tensor:
    """See `ImageDecoder.decode`. `encode` and `caption` take the result."""
    return self._images.decode(encoded_image, exif_orientation)

  def process(self, pixels: np.ndarray, orientation: int = 1) -> tf.Tensor:
    """See `ImageDecoder.process`. `encode` and `caption` take the result."""
    return self._images.process(pixels, orientation)

  def encode(self, images: Sequence[tf.Tensor]) -> tf.Tensor:
    """Encodes a batch of images with Inception v3.

    Args:
      images: results of `decode`.

    Returns:
      float32 [batch, 2048 * encoders].

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
    return self.encode_batch(tf.stack(images))

  def encode_batch(self, batch: tf.Tensor) -> tf.Tensor:
    """Like `encode`, of float32 [batch, height, width, 3]; may be traced."""
    if len(self.encoders) == 1:
      return self.encoders[0](batch)
    return tf.concat([encode(batch) for encode in self.encoders], axis=1)

  def feature_maps(self, images: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns what `encode` averages over the image.

    Args:
      images: results of `decode`.

    Returns:
      float32 [batch, rows, columns, 2048 for each encoder].
    """
    batch = tf.stack(images)
    return tf.concat(
      [encoder.feature_maps(batch) for encoder in self.encoders], axis=3
    )

  @property
  def seen(self) -> tuple[float, float, float, float]:
    """The part of an image that the model sees, its middle.

    It is (left, top, right, bottom), shares of the width and the height.
    """
    return self._images.seen

  def caption(
    self,
    images: Sequence[tf.Tensor],
    first_image: int = 0,
    word_probabilities: bool = False,
  ) -> list[list[ScoredCaption]]:
    """Captions a batch of images.

    Args:
      images: results of `decode`.
      first_image: see `FeatureCaptioner.caption`.
      word_probabilities: see `FeatureCaptioner.caption`.

    Returns:
      For each image its captions, best first.

    Raises:
      TypeError: see `encode`.
    """
    return self.decoder.caption(
      self.encode(images), first_image, word_probabilities
    )


def digest(*values: object) -> str:
  """Returns 16 hexadecimal digits that tell values from others.

  Args:
    *values: what JSON can hold.
  """
  return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
