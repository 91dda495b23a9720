# SPDX-License-Identifier: Apache-2.0
"""Curves of training runs, read from TensorBoard's event files and drawn."""

import os

# Title of a panel, last parts of the tags that belong in it, in lower case,
# and its scale.
_PANELS = (
  ('loss (nats a word)', ('smoothed_loss', 'cross_entropy'), 'linear'),
  ('perplexity', ('perplexity',), 'log'),
  ('BLEU-4', ('bleu_4',), 'linear'),
  ('CIDEr', ('cider',), 'linear'),
  ('learning rate', ('learning_rate',), 'log'),
)


def read_scalars(directory):
  """Returns {tag: list of (step, time in s, value)} of the event files there.

  Where a run was resumed from an earlier step, what it had logged after that
  is left out. A file that is still being written ends where it ends.

  Args:
    directory: str; what is below it is not read.
  """
  from tensorboard.backend.event_processing import plugin_event_accumulator
  from tensorboard.util import tensor_util

  accumulator = plugin_event_accumulator.EventAccumulator(
    str(directory),
    tensor_size_guidance={'scalars': 0, 'images': 1, 'histograms': 1},
  )
  accumulator.Reload()
  scalars = {}
  for tag in accumulator.PluginTagToContent('scalars'):
    points = scalars[tag] = []
    for event in accumulator.Tensors(tag):
      # TensorBoard itself does so only for writers of TensorFlow 1.
      while points and points[-1][0] >= event.step:
        points.pop()
      points.append(
        (
          event.step,
          event.wall_time,
          float(tensor_util.make_ndarray(event.tensor_proto)),
        )
      )
  return scalars


def find_runs(logdirs):
  """Returns {name: scalars} of all directories with scalars.

  Args:
    logdirs: list of str.

  Raises:
    ValueError: in one of them there is nothing to draw.
  """
  found = {}
  for logdir in logdirs:
    before = len(found)
    for directory, _, names in sorted(os.walk(logdir)):
      if any('.tfevents.' in name for name in names):
        scalars = read_scalars(directory)
        if scalars:
          found[os.path.abspath(directory)] = scalars
    if len(found) == before:
      raise ValueError(
        f'--logdirs={",".join(logdirs)}: there are no event '
        f'files with scalars in {logdir} or below'
      )
  # Names that tell them apart: what is not the same in all.
  top = os.path.commonpath(found)
  if len(found) == 1:
    top = os.path.dirname(top)
  return {
    os.path.relpath(directory, top): scalars
    for directory, scalars in found.items()
  }


def draw(runs):
  """Returns a matplotlib Figure of the curves.

  Args:
    runs: dict, name -> what `read_scalars` returns.

  Raises:
    ValueError: none of the scalars belongs in a panel.
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
      'the event files have none of the scalars to draw: '
      + ', '.join(title for title, _, _ in _PANELS)
    )
  colors = {name: f'C{i % 10}' for i, name in enumerate(runs)}
  begin = {
    name: min(points[0][1] for points in scalars.values())
    for name, scalars in runs.items()
  }
  longest = max(
    points[-1][1] - begin[name]
    for _, _, curves in panels
    for name, points in curves
  )
  # Fractions of hours would stand over each other.
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
      # A single point makes no line.
      style = {
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
    if all(point[2] > 0 for _, points in curves for point in points):
      row[0].set_yscale(scale)
    for axes, label in zip(row, ('step', unit)):
      axes.set_xlabel(label)
      axes.grid(alpha=0.3)
    row[0].legend()
  return result
