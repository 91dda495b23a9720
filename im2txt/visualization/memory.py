# SPDX-License-Identifier: Apache-2.0
"""Draws the memory of long runs, step by step."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

_MB = 1e6


class Sample(NamedTuple):
  """The memory of a process at a step, in bytes.

  Attributes:
    step: steps taken so far.
    private: pages that are the process's own.
    mapped: pages of files, which the system takes back when it needs them.
    read: bytes of the stream that these steps have read.
  """

  step: int
  private: int
  mapped: int
  read: int


def draw(runs: Mapping[str, Sequence[Sample]]) -> 'figure_lib.Figure':
  """Draws a panel per run: memory, and how much of the stream was read.

  Args:
    runs: the samples of each run, by name.
  """
  from matplotlib import figure

  result = figure.Figure(figsize=(12, 4), layout='constrained')
  panels = result.subplots(1, len(runs), squeeze=False, sharey=True)[0]
  for axes, (name, samples) in zip(panels, runs.items()):
    steps = [sample.step for sample in samples]
    axes.plot(
      steps, [s.read / _MB for s in samples], color='C7', label='stream read'
    )
    axes.plot(
      steps, [s.private / _MB for s in samples], color='C0', label='own memory'
    )
    axes.plot(
      steps,
      [s.mapped / _MB for s in samples],
      color='C1',
      linestyle='--',
      label='pages of files',
    )
    axes.set_title(name)
    axes.set_xlabel('step')
    axes.grid(alpha=0.3)
    axes.set_ylim(0)
  panels[0].set_ylabel('MB')
  panels[0].legend(loc='upper left')
  return result
