# SPDX-License-Identifier: Apache-2.0
"""Plots of the results of `benchmark`."""

from collections.abc import Mapping
import os
from typing import Any
from typing import TYPE_CHECKING

from im2txt.runtime import files

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib


def draw(results: Mapping[str, Any], directory: str) -> None:
  """Draws time.png and, if growth was measured, growth.png.

  Args:
    results: of `suite.Benchmark`.
    directory: receives the files.
  """
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  def save(figure: 'figure_lib.Figure', name: str) -> None:
    files.write_figure(
      os.path.join(directory, name), figure, bbox_inches='tight'
    )

  figure, axis = pyplot.subplots(figsize=(8, 2.2))
  for name in ('captioning, parts', 'training step, parts'):
    parts = {k: max(v, 0) for k, v in results[name].items() if k != 'unit'}
    total = sum(parts.values())
    left = 0.0
    for part, value in parts.items():
      axis.barh(
        f'{name.split(",")[0]}\n{total:.3g} {results[name]["unit"]}',
        100 * value / total,
        left=left,
        label=part,
      )
      left += 100 * value / total
  axis.set_xlabel('% of the time')
  axis.legend(
    loc='upper center', bbox_to_anchor=(0.5, 1.3), ncols=5, fontsize=8
  )
  save(figure, 'time.png')
  if 'growth' not in results:
    return
  growth = results['growth']
  figure, axes = pyplot.subplots(1, len(growth), figsize=(3 * len(growth), 2.6))
  for axis, (name, points) in zip(axes, growth.items()):
    axis.plot(*zip(*points), marker='o')
    axis.set_title(name, fontsize=9)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(
      'ms per image' if name.startswith('captioning') else 'ms per caption',
      fontsize=8,
    )
  figure.tight_layout()
  save(figure, 'growth.png')
