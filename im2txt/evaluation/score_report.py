# SPDX-License-Identifier: Apache-2.0
"""What score prints and writes of its runs."""

from collections.abc import Mapping
import csv
import os

from absl import logging

from im2txt.data import caption_files
from im2txt.data import coco_server
from im2txt.evaluation import score_options
from im2txt.evaluation import scoring
from im2txt.metrics import caption_scores
from im2txt.metrics import resampling
from im2txt.metrics import summary
from im2txt.runtime import files
from im2txt.text import tokenizer
from im2txt.text import vocabulary_stamp

_Comparisons = Mapping[str, Mapping[str, resampling.Difference]]


class Report:
  """How sure the scores of some runs are, and what they depend on.

  Args:
    options: what was scored.
    runs: name -> run.
    comparisons: what `scoring.compare` returns.
    stamp: of the vocabulary of the data; None if not known.
  """

  def __init__(
    self,
    options: score_options.ScoreOptions,
    runs: Mapping[str, scoring.Run],
    comparisons: _Comparisons,
    stamp: vocabulary_stamp.Stamp | None,
  ):
    self._options = options
    self._runs = runs
    self._comparisons = comparisons
    self._intervals: dict[str, dict[str, tuple[float, float]]] = {}
    if options.resamples:
      self._intervals = {
        name: resampling.intervals(
          run.measured, options.resamples, options.resampling_seed
        )
        for name, run in runs.items()
      }
    self._signatures = {
      name: _signature(options, run.measured, stamp)
      for name, run in runs.items()
    }

  def text(self) -> str:
    """Returns what is printed below the table of scores."""
    parts = []
    if self._intervals:
      shown = {
        name: {
          metric: f'{low:.4f}-{high:.4f}'
          for metric, (low, high) in of_run.items()
        }
        for name, of_run in self._intervals.items()
      }
      parts.append(
        f'{resampling.CONFIDENCE:.0%} intervals '
        f'({self._options.resamples} resamples of the images)\n'
        + summary.table(shown)
      )
    baseline = os.path.basename(self._options.compare_with)
    for name, differences in self._comparisons.items():
      parts.append(
        f'{name} less {baseline}\n' + summary.comparison_table(differences)
      )
    parts.append(
      '\n'.join(
        f'signature of {name}: {signature}'
        for name, signature in self._signatures.items()
      )
    )
    return '\n\n'.join(parts)

  def as_dict(self) -> dict[str, object]:
    """Returns all of it, as --report_json has it."""
    return {
      'runs': {
        name: {
          'scores': run.scores,
          'intervals': self._intervals.get(name, {}),
          'signature': self._signatures[name],
        }
        for name, run in self._runs.items()
      },
      'compared_with': self._options.compare_with or None,
      'differences': {
        name: {
          metric: difference._asdict()
          for metric, difference in differences.items()
        }
        for name, differences in self._comparisons.items()
      },
    }


def _signature(
  options: score_options.ScoreOptions,
  measured: caption_scores.Measured,
  stamp: vocabulary_stamp.Stamp | None,
) -> str:
  """Returns the line of what the scores of a run depend on."""
  if stamp is None or tokenizer.for_scores(stamp) is None:
    signature = caption_scores.signature(measured)
  else:
    signature = caption_scores.signature(
      measured, tokenizer.version(stamp.tokenizer).replace(' ', '-')
    )
  if options.resamples:
    signature += (
      f'|resamples:{options.resamples}|seed:{options.resampling_seed}'
    )
  return signature


def write_results(path: str, captions: scoring.Captions) -> None:
  """Writes captions as COCO's evaluation server takes them."""
  files.write_json(path, caption_files.results(captions))


def write_server_zip(
  options: score_options.ScoreOptions, val2014: scoring.Captions
) -> None:
  """Writes --server_zip with these captions and those of test2014."""
  lines = coco_server.write(
    options.server_zip,
    options.server_name,
    {
      'val2014': val2014,
      'test2014': caption_files.read_results(
        options.test2014_results, '--test2014_results'
      ),
    },
  )
  for line in lines:
    logging.warning('--server_zip=%s: %s', options.server_zip, line)


def write_image_scores(path: str, runs: Mapping[str, scoring.Run]) -> None:
  """Writes a row for each image of each run: CSV by its name, or else JSON.

  Raises:
    OSError: it cannot be written.
  """
  rows = [
    row
    for name, run in runs.items()
    for row in summary.image_rows(name, run.measured, run.captions)
  ]
  if not path.endswith('.csv'):
    files.write_json(path, rows)
    return
  with files.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='') as f:
      writer = csv.DictWriter(
        f, list(dict.fromkeys(key for row in rows for key in row))
      )
      writer.writeheader()
      writer.writerows(rows)
