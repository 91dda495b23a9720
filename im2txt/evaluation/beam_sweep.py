# SPDX-License-Identifier: Apache-2.0
"""Scores of captions against the size of the beam and length normalization."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import json
import os
from typing import Self
from typing import TYPE_CHECKING

from absl import logging
import numpy as np
import numpy.typing as npt

from im2txt import checkpoints
from im2txt.checkpoints import encoder_stamp
from im2txt.data import caption_files
from im2txt.data import image_store
from im2txt.data import shards
from im2txt.inference_utils import batches
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime import files
from im2txt.runtime import numpy_files
from im2txt.runtime.progress import Progress
from im2txt.text import vocabulary

if TYPE_CHECKING:
  from matplotlib import figure

# {(beam size, length normalization factor): {metric: value}}
Points = dict[tuple[int, float], dict[str, float]]
# Image id -> captions, the best first.
NBest = dict[int, list[str]]
# (image ids, features)
_Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]

POINTS_FILE = 'sweep.json'
PLOT_FILE = 'sweep.png'
# Images whose captions are searched at once.
_BATCH_SIZE = 32


class Images:
  """The images of a data set, with their references.

  Attributes:
    references: dict, image id -> list of captions.
  """

  def __init__(
    self,
    references: dict[int, list[str]],
    batches: Callable[[int], Iterable[list[tuple[int, bytes]]]],
  ):
    """Takes what the class methods have found.

    Args:
      references: dict, image id -> list of captions.
      batches: callable (batch size) -> iterable of lists of (image id, bytes).
    """
    self.references = references
    self.batches = batches

  @classmethod
  def of_shards(
    cls, paths: Sequence[str], max_images: int, vocab: vocabulary.Vocabulary
  ) -> Self:
    """Returns the images of shards; see `shards.captions_by_image`."""
    references = {
      image_id: captions
      for image_id, (captions, _) in shards.captions_by_image(
        paths, max_images, vocab
      ).items()
    }
    return cls(
      references, lambda size: shards.image_batches(paths, references, size)
    )

  @classmethod
  def of_captions_file(
    cls, path: str, image_dir: str, split: str, max_images: int
  ) -> Self:
    """Returns the images of a captions file.

    Args:
      path: of a file that `caption_files.read` reads.
      image_dir: directory of the images, or a .zip file of it.
      split: only images of this split; '' for all.
      max_images: only so many; 0 for all.

    Raises:
      ValueError: the file cannot be read, or no image with a caption is left.
    """
    entries = caption_files.read(path, '--captions_file')
    if split:
      entries = caption_files.split_by_field(entries, path)[split]
    found = [
      (entry.image_id, entry)
      for entry in caption_files.numbered(entries)
      if entry.captions and entry.image_id is not None
    ][: max_images or None]
    if not found:
      raise ValueError(
        f'--captions_file={path} has no image with a caption'
        + (f' of --split={split}' if split else '')
      )
    image_store.stats(image_dir, '--image_dir')

    def batches(size: int) -> Iterator[list[tuple[int, bytes]]]:
      for start in range(0, len(found), size):
        yield [
          (
            image_id,
            image_store.read(os.path.join(image_dir, entry.file_name)),
          )
          for image_id, entry in found[start : start + size]
        ]

    return cls({image_id: entry.captions for image_id, entry in found}, batches)


class Sweep:
  """Scores of captions at each point, the finished ones kept in a file.

  Args:
    directory: where the files of the sweep are; it is made.
    captioner: a `captioner.Captioner`.
    images: `Images`.
    search: a `SearchConfig`, all settings but the two that are varied.
    metrics: names out of `summary.METRICS`.
    split: what tokenizes captions, see `caption_scores.score`.
    feature_dir: directory of the features of the images, which sweeps of other
      checkpoints on the same images can share; '' for `directory`. Encoders
      have a file each.
    keep_captions: whether to keep the captions too, see `captions_path`.

  Raises:
    ValueError: the directory holds a sweep of something else, or a damaged one.
  """

  def __init__(
    self,
    directory: str,
    captioner: captioner_lib.Captioner,
    images: Images,
    search: search_config.SearchConfig,
    metrics: Sequence[str],
    split: caption_scores.Split = caption_scores.tokenize,
    feature_dir: str = '',
    keep_captions: bool = False,
  ):
    self._directory = directory
    self._feature_dir = feature_dir or directory
    self._keep_captions = keep_captions
    self._captioner = captioner
    self._images = images
    self._search = search.completed(captioner.model.config)
    self._metrics = metrics
    self._split = split
    self._features: _Features | None = None
    os.makedirs(directory, exist_ok=True)
    os.makedirs(self._feature_dir, exist_ok=True)
    settings = self._search.as_dict()
    del settings['beam_size'], settings['length_normalization_factor']
    self._captions = hashlib.sha256(
      json.dumps(sorted(images.references.items())).encode()
    ).hexdigest()
    self._measured_on = {
      'checkpoints': [_weights(p) for p in captioner.prefixes],
      'captions': self._captions,
      'search': settings,
    }
    if captioner.precision != 'float32':
      self._measured_on['precision'] = captioner.precision
    self._path = os.path.join(directory, POINTS_FILE)
    self.points = self._read()

  def _read(self) -> Points:
    """Returns {(beam size, factor): {metric: value}} of the file."""
    if not os.path.exists(self._path):
      return {}
    measured_on, points = _read(self._path)
    for name in {**self._measured_on, **measured_on}:
      if measured_on.get(name) != self._measured_on.get(name):
        raise ValueError(
          f'{self._path} is of other {name}: give another --output_dir, or '
          'delete it to begin anew'
        )
    return points

  def run(self, beam_sizes: Sequence[int], factors: Sequence[float]) -> Points:
    """Scores all points that are not finished.

    Args:
      beam_sizes: list of int.
      factors: list of float, of the length normalization.

    Returns:
      {(beam size, factor): {metric: value}} of these points.

    Raises:
      ValueError: no image can be decoded.
    """
    wanted = list(itertools.product(beam_sizes, factors))
    left = [
      point
      for point in wanted
      if not set(self._metrics) <= self.points.get(point, {}).keys()
      or (
        self._keep_captions
        and not os.path.exists(captions_path(self._directory, *point))
      )
    ]
    if len(left) < len(wanted):
      logging.info(
        '%d of %d points are in %s',
        len(wanted) - len(left),
        len(wanted),
        self._path,
      )
    with Progress(
      'Sweeping', len(wanted), 'points', done=len(wanted) - len(left)
    ) as progress:
      for point in left:
        scores = self._score(*point)
        self.points.setdefault(point, {}).update(scores)
        self._write()
        logging.info(
          'beam size %d, length normalization %g: %s',
          *point,
          ', '.join(f'{n} = {v:.4f}' for n, v in scores.items()),
        )
        progress.update(1)
    return {point: self.points[point] for point in wanted}

  def _write(self) -> None:
    files.write_json(
      self._path,
      {
        'measured_on': self._measured_on,
        'points': [
          {
            'beam_size': beam_size,
            'length_normalization_factor': factor,
            'scores': scores,
          }
          for (beam_size, factor), scores in sorted(self.points.items())
        ],
      },
    )

  def _score(self, beam_size: int, factor: float) -> dict[str, float]:
    """Returns {metric: value} of a point."""
    image_ids, features = self._encoded()
    decoder = self._captioner.decoder.with_search(
      dataclasses.replace(
        self._search, beam_size=beam_size, length_normalization_factor=factor
      )
    )
    n_best: NBest = {}
    for start in range(0, len(image_ids), _BATCH_SIZE):
      batch = slice(start, start + _BATCH_SIZE)
      n_best.update(
        zip(
          image_ids[batch].tolist(),
          (
            [caption.text for caption in captions]
            for captions in decoder.caption(features[batch], start)
          ),
        )
      )
    if self._keep_captions:
      files.write_json(
        captions_path(self._directory, beam_size, factor),
        [
          {'image_id': image_id, 'captions': captions}
          for image_id, captions in n_best.items()
        ],
      )
    scores = summary.summarize(
      self._images.references, n_best, metrics=self._metrics, split=self._split
    )
    return {name: scores[name] for name in self._metrics if name in scores}

  def _encoded(self) -> _Features:
    """Returns (image ids, features), each image encoded once for all runs."""
    if self._features:
      return self._features
    fingerprints = self._captioner.encoder_fingerprints
    found = [self._read_features(fingerprint) for fingerprint in fingerprints]
    of_encoders = [part for part in found if part is not None]
    if len(of_encoders) < len(fingerprints):
      image_ids, features = self._encode()
      of_encoders = [
        (image_ids, part)
        for part in np.split(features, len(fingerprints), axis=1)
      ]
      for fingerprint, part in zip(fingerprints, of_encoders):
        self._write_features(fingerprint, part)
    self._features = (
      of_encoders[0][0],
      np.concatenate([features for _, features in of_encoders], axis=1),
    )
    return self._features

  def _encode(self) -> _Features:
    """Encodes all images.

    Raises:
      ValueError: none of them can be decoded.
    """
    image_ids, features = [], []
    with Progress('Encoding', len(self._images.references), 'images') as p:
      for ids, encoded in batches.encode_batches(
        self._captioner, self._images.batches(_BATCH_SIZE), p
      ):
        image_ids += ids
        features.append(encoded)
    if not image_ids:
      raise ValueError('there is no image that can be decoded')
    return np.array(image_ids), np.concatenate(features)

  def _features_file(self, fingerprint: str) -> tuple[str, str]:
    """Returns the path of the features of an encoder, and what marks them."""
    precision = self._captioner.precision
    name = f'features-{fingerprint[:16]}-{precision}.npz'
    return os.path.join(self._feature_dir, name), json.dumps(
      {
        'captions': self._captions,
        'encoder': fingerprint,
        'precision': precision,
      }
    )

  def _read_features(self, fingerprint: str) -> _Features | None:
    """Returns the features of an encoder, None if they are not there."""
    path, mark = self._features_file(fingerprint)
    try:
      found = numpy_files.read(path)
      if str(found['mark']) == mark:
        return found['image_ids'], found['features']
    except FileNotFoundError:
      pass
    except (OSError, ValueError, KeyError) as e:
      logging.warning('%s is damaged (%s): made again', path, e)
    return None

  def _write_features(self, fingerprint: str, features: _Features) -> None:
    path, mark = self._features_file(fingerprint)
    with files.replacing(path) as temporary:
      with open(temporary, 'wb') as f:
        np.savez(f, mark=mark, image_ids=features[0], features=features[1])


def _read(path: str) -> tuple[dict[str, object], Points]:
  """Returns (what was measured on, points) of a file of a sweep.

  Raises:
    ValueError: it cannot be read.
  """
  try:
    content = files.read_json(path)
    points = {
      (point['beam_size'], point['length_normalization_factor']): point[
        'scores'
      ]
      for point in content['points']
    }
    return dict(content['measured_on']), points
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'cannot read {path} ({type(error).__name__}: {error}); delete it to '
      'begin anew'
    ) from error


def read_points(directory: str) -> Points:
  """Returns the points of the sweep in a directory.

  Raises:
    ValueError: there is none that can be read.
  """
  return _read(os.path.join(directory, POINTS_FILE))[1]


def captions_path(directory: str, beam_size: int, factor: float) -> str:
  """Returns the path of the captions of a point.

  It is a JSON file: [{"image_id": 42, "captions": [the best, ...]}, ...].

  >>> captions_path('sweep', 3, 0.0)
  'sweep/captions-3-0.json'
  """
  return os.path.join(directory, f'captions-{beam_size}-{factor:g}.json')


def read_captions(directory: str, beam_size: int, factor: float) -> NBest:
  """Returns the captions of a point, which a sweep has kept.

  Raises:
    ValueError: there are none that can be read.
  """
  path = captions_path(directory, beam_size, factor)
  try:
    return {row['image_id']: row['captions'] for row in files.read_json(path)}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'cannot read {path} ({type(error).__name__}: {error}); delete it and '
      'run sweep --keep_captions again'
    ) from error


def _weights(prefix: str) -> str:
  """Returns what tells the weights of a checkpoint from others, a str."""
  checkpoint = checkpoints.Checkpoint(prefix)
  return encoder_stamp.fingerprint(
    {name: checkpoint.get(name) for name in checkpoint.shapes}
  )


def tables(points: Points, metrics: Sequence[str]) -> str:
  """Returns a table per metric: a line per beam size, a column per factor.

  Args:
    points: {(beam size, factor): {metric: value}}.
    metrics: names, in order.
  """
  parts = []
  for metric in metrics:
    columns: dict[str, dict[str, float | str]] = {}
    for (beam_size, factor), scores in sorted(points.items()):
      columns.setdefault(f'{factor:g}', {})[f'beam {beam_size}'] = scores.get(
        metric, '-'
      )
    parts.append(
      f'{metric}, by length normalization factor\n' + summary.table(columns)
    )
  return '\n\n'.join(parts)


def draw(points: Points, metrics: Sequence[str]) -> 'figure.Figure':
  """Returns a matplotlib Figure: a panel per metric, a curve per factor.

  Args:
    points: {(beam size, factor): {metric: value}}.
    metrics: names, in order.
  """
  from matplotlib import figure

  result = figure.Figure(figsize=(8, 3 * len(metrics)), layout='constrained')
  grid = result.subplots(len(metrics), 1, squeeze=False)
  for (axes,), metric in zip(grid, metrics):
    curves: dict[float, list[tuple[int, float]]] = {}
    for (beam_size, factor), scores in sorted(points.items()):
      if metric in scores:
        curves.setdefault(factor, []).append((beam_size, scores[metric]))
    for factor, curve in curves.items():
      axes.plot(*zip(*curve), marker='o', markersize=3, label=f'{factor:g}')
    axes.set_xlabel('beam size')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    if curves:
      axes.legend(title='length normalization', fontsize=8)
  return result
