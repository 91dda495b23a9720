# SPDX-License-Identifier: Apache-2.0
"""Draws curves of training runs from TensorBoard's event files."""

from collections.abc import Mapping
from collections.abc import Sequence
import logging
import os
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

# Title of a panel, the last parts of its tags in lower case, and its scale.
_PANELS = (
  ('loss (nats per word)', ('smoothed_loss', 'cross_entropy'), 'linear'),
  ('perplexity', ('perplexity',), 'log'),
  ('BLEU-4', ('bleu_4',), 'linear'),
  ('CIDEr', ('cider',), 'linear'),
  ('learning rate', ('learning_rate',), 'log'),
)


class Point(NamedTuple):
  """A value that was logged."""

  step: int
  seconds: float
  value: float


# The points of each tag.
Scalars = dict[str, list[Point]]


def read_scalars(directory: str | os.PathLike[str]) -> Scalars:
  """Returns the points of each tag in the event files of a directory.

  If a run was resumed from an earlier step, the points that it had logged after
  this step are left out. A file that is still being written is read up to its
  end.

  Args:
    directory: directory of event files; directories below it are not read.
  """
  from tensorboard.backend.event_processing import plugin_event_accumulator
  from tensorboard.util import tb_logging
  from tensorboard.util import tensor_util

  # It tells of every file that it has read to the end.
  tb_logging.get_logger().setLevel(logging.WARNING)
  accumulator = plugin_event_accumulator.EventAccumulator(
    str(directory),
    tensor_size_guidance={'scalars': 0, 'images': 1, 'histograms': 1},
  )
  accumulator.Reload()
  scalars: Scalars = {}
  for tag in accumulator.PluginTagToContent('scalars'):
    points = scalars[tag] = []
    for event in accumulator.Tensors(tag):
      # TensorBoard itself does this only for writers of TensorFlow 1.
      while points and points[-1].step >= event.step:
        points.pop()
      points.append(
        Point(
          event.step,
          event.wall_time,
          float(tensor_util.make_ndarray(event.tensor_proto)),
        )
      )
  return scalars


def find_runs(logdirs: Sequence[str]) -> dict[str, Scalars]:
  """Returns the scalars of all directories with event files, by name.

  Directories are searched recursively.

  Raises:
    ValueError: one of the directories has nothing to draw.
  """
  found: dict[str, Scalars] = {}
  for logdir in logdirs:
    before = len(found)
    for directory, _, names in sorted(os.walk(logdir)):
      if any('.tfevents.' in name for name in names):
        scalars = read_scalars(directory)
        if scalars:
          found[os.path.abspath(directory)] = scalars
    if len(found) == before:
      raise ValueError(
        f'--logdirs={",".join(logdirs)}: there are no event files with scalars '
        f'in {logdir} or below; give the directories of training runs'
      )
  # Names without the part of the path that all runs share.
  top = os.path.commonpath(found)
  if len(found) == 1:
    top = os.path.dirname(top)
  return {
    os.path.relpath(directory, top): scalars
    for directory, scalars in found.items()
  }


def draw(runs: Mapping[str, Scalars]) -> 'figure_lib.Figure':
  """Draws the curves of runs. Panels without data are omitted.

  Args:
    runs: the scalars of each run, by name.

  Raises:
    ValueError: no scalar belongs in a panel.
  """
  from matplotlib import figure

  panels = []
  for title, endings, scale in _PANELS:
    curves = [
      (name, points)
      for name, scalars in runs.items()
      for tag, points in scalars.items()
      if tag.lower().rpartition('/')[2] in endings
    ]
    if curves:
      panels.append((title, scale, curves))
  if not panels:
    raise ValueError(
      'the event files have none of the scalars to draw ('
      + ', '.join(title for title, _, _ in _PANELS)
      + '): give the directories of training runs'
    )
  colors = {name: f'C{i % 10}' for i, name in enumerate(runs)}
  begin = {
    name: min(points[0].seconds for points in scalars.values())
    for name, scalars in runs.items()
  }
  longest = max(
    points[-1].seconds - begin[name]
    for _, _, curves in panels
    for name, points in curves
  )
  # Labels with fractions of hours would overlap.
  unit, seconds = next(
    (
      (unit, seconds)
      for unit, seconds in (('hours', 3600), ('minutes', 60))
      if longest >= 2 * seconds
    ),
    ('seconds', 1),
  )
  result = figure.Figure(figsize=(12, 3 * len(panels)), layout='constrained')
  grid = result.subplots(len(panels), 2, squeeze=False, sharey='row')
  for row, (title, scale, curves) in zip(grid, panels):
    for name, points in curves:
      steps, times, values = zip(*points)
      # A single point would not be visible as a line.
      style: dict[str, Any] = {
        'color': colors[name],
        'label': name,
        'marker': 'o' if len(points) < 30 else None,
        'markersize': 3,
      }
      row[0].plot(steps, values, **style)
      row[1].plot(
        [(time - begin[name]) / seconds for time in times], values, **style
      )
    row[0].set_ylabel(title)
    if all(point.value > 0 for _, points in curves for point in points):
      row[0].set_yscale(scale)
    for axes, label in zip(row, ('step', unit)):
      axes.set_xlabel(label)
      axes.grid(alpha=0.3)
    row[0].legend()
  return result
