# SPDX-License-Identifier: Apache-2.0
"""The tables and the plots of scripts/lessons.sh.

  python -m im2txt.evaluation.lessons --directory=data/lessons

A row of a table is a lesson of the paper: several models that differ in their
seed, scored by `sweep` with several sizes of the beam. DIRECTORY has the shards,
in ROW-SEED the trainings, and in scores/ROW-SEED the sweep of each model. Written
to it are lessons.md, lessons.png and switch.png, the loss where joint training
begins.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
import statistics
import sys
from typing import NamedTuple
from typing import TYPE_CHECKING

from im2txt.data import shards
from im2txt.evaluation import beam_sweep
from im2txt.evaluation import scoring
from im2txt.metrics import caption_scores
from im2txt.metrics import diversity
from im2txt.runtime import files
from im2txt.visualization import curves

if TYPE_CHECKING:
  from matplotlib import figure as figure_lib

# The size of the beam that rows are compared with.
BEAM = 3
# As many of the best captions are looked at for new ones as in the paper.
N_BEST = 15


class Lesson(NamedTuple):
  """A row of the table.

  Attributes:
    key: begins the names of its runs.
    title: what it does.
    before: key of the row that it is built upon; '' for none.
    paper: gain in BLEU-4 that the paper tells of, in points; '' for none.
  """

  key: str
  title: str
  before: str = ''
  paper: str = ''


LESSONS = (
  Lesson('frozen', 'encoder frozen'),
  Lesson('longer', 'frozen, more steps', 'frozen'),
  Lesson('joint', '+ top blocks fine-tuned', 'frozen', '+1'),
  Lesson('sampled', '+ scheduled sampling', 'joint', 'up to +1.5'),
  Lesson('ensemble-without', '+ ensemble of two', 'sampled', '+1.5, of 15'),
  Lesson('ensemble-all', '+ ensemble of three', 'sampled', '+1.5, of 15'),
  # It has the frozen encoder, so that features need not be computed again.
  Lesson('critical', 'frozen, more steps, + self-critical', 'longer'),
)
_PAPER_BEAM = 'more than +2'

# The columns of scores: name, title, factor and digits.
_COLUMNS = (
  ('bleu_1', 'BLEU-1', 100, 1),
  ('bleu_4', 'BLEU-4', 100, 1),
  ('meteor', 'METEOR', 100, 1),
  ('rouge_l', 'ROUGE-L', 100, 1),
  ('cider', 'CIDEr', 1, 3),
  ('distinct_captions', 'distinct captions', 1, 0),
  ('vocabulary_used', 'words used', 1, 0),
)

# Suffix of the run, which is the seed -> size of the beam -> metric -> value.
Runs = dict[str, dict[int, dict[str, float]]]
# Key of a lesson -> its runs.
Rows = dict[str, Runs]


class Spread(NamedTuple):
  """The mean of some runs.

  Attributes:
    mean: of the runs.
    deviation: their standard deviation (n - 1); NaN of one run.
    runs: their number.
  """

  mean: float
  deviation: float
  runs: int

  @classmethod
  def of(cls, values: Sequence[float]) -> 'Spread':
    """Returns the spread of one value or more."""
    return cls(
      statistics.fmean(values),
      statistics.stdev(values) if len(values) > 1 else math.nan,
      len(values),
    )

  def text(self, factor: float = 100, digits: int = 1, sign: str = '') -> str:
    """Returns it for a table, such as '16.5 ± 0.3'."""
    text = f'{factor * self.mean:{sign}.{digits}f}'
    if self.runs > 1:
      text += f' ± {factor * self.deviation:.{digits}f}'
    return text


def read_rows(directory: str) -> Rows:
  """Returns the rows whose sweeps are in a directory, in order.

  Args:
    directory: has ROW-SEED/sweep.json of each run, or ensemble-all/sweep.json.

  Raises:
    ValueError: there are none, or one cannot be read.
  """
  rows: Rows = {}
  names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
  for lesson in LESSONS:
    for name in names:
      run = name.removeprefix(lesson.key)
      path = os.path.join(directory, name)
      if run == name or not os.path.exists(
        os.path.join(path, beam_sweep.POINTS_FILE)
      ):
        continue
      rows.setdefault(lesson.key, {})[run.removeprefix('-')] = {
        beam: scores
        for (beam, factor), scores in beam_sweep.read_points(path).items()
        if factor == 0
      }
  if not rows:
    raise ValueError(
      f'there are no scores in {directory}: scripts/lessons.sh makes them'
    )
  return rows


def spread(rows: Rows, key: str, beam: int, metric: str) -> Spread | None:
  """Returns the spread of a metric over the runs of a row, None without any."""
  values = [
    scores[beam][metric]
    for scores in rows.get(key, {}).values()
    if metric in scores.get(beam, {})
  ]
  return Spread.of(values) if values else None


def gain(
  rows: Rows, lesson: Lesson, metric: str, beam: int = BEAM
) -> Spread | None:
  """Returns what a row gains over the row that it is built upon.

  A model is compared with that of the same seed, and an ensemble with the mean
  of its members.

  Args:
    rows: see `read_rows`.
    lesson: the row.
    metric: name of the metric.
    beam: size of the beam.

  Returns:
    The spread of the differences; None if there is nothing to compare.
  """
  before = {
    run: scores[beam][metric]
    for run, scores in rows.get(lesson.before, {}).items()
    if metric in scores.get(beam, {})
  }
  differences = []
  for run, scores in rows.get(lesson.key, {}).items():
    if lesson.key == 'ensemble-all':
      members = list(before.values())
    elif lesson.key == 'ensemble-without':
      members = [value for seed, value in before.items() if seed != run]
    else:
      members = [value for seed, value in before.items() if seed == run]
    if members and metric in scores.get(beam, {}):
      differences.append(scores[beam][metric] - statistics.fmean(members))
  return Spread.of(differences) if differences else None


def beam_gain(rows: Rows, key: str, metric: str, beam: int) -> Spread | None:
  """Returns what a row gains when the beam goes from a size to `BEAM`."""
  differences = [
    scores[BEAM][metric] - scores[beam][metric]
    for scores in rows.get(key, {}).values()
    if metric in scores.get(beam, {}) and metric in scores.get(BEAM, {})
  ]
  return Spread.of(differences) if differences else None


def agreement(found: Spread | None) -> str:
  """Says whether a gain has the sign of the paper's, which is above zero."""
  if found is None:
    return ''
  if found.mean <= 0:
    return '**no**'
  if found.runs > 1 and found.mean <= found.deviation:
    return 'within the spread'
  return 'yes'


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table."""
  rows = [header, ['---'] * len(header), *lines]
  return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _cell(found: Spread | None, *args: object, **kwargs: object) -> str:
  return found.text(*args, **kwargs) if found else ''  # type: ignore[arg-type]


def lessons_table(rows: Rows) -> str:
  """Returns the table of all rows, with the beam of `BEAM`."""
  columns = [
    column
    for column in _COLUMNS
    if any(spread(rows, key, BEAM, column[0]) for key in rows)
  ]
  header = ['', 'runs', *(title for _, title, _, _ in columns)]
  header += ['BLEU-4 gained', 'paper', 'same sign', 'CIDEr gained']
  lines = []
  for lesson in LESSONS:
    if lesson.key not in rows:
      continue
    gained = gain(rows, lesson, 'bleu_4')
    lines.append(
      [
        lesson.title,
        str(len(rows[lesson.key])),
        *(
          _cell(spread(rows, lesson.key, BEAM, name), factor, digits)
          for name, _, factor, digits in columns
        ),
        _cell(gained, sign='+'),
        lesson.paper,
        agreement(gained) if lesson.paper else '',
        _cell(gain(rows, lesson, 'cider'), 1, 3, sign='+'),
      ]
    )
  return markdown(header, lines)


def beam_table(rows: Rows) -> str:
  """Returns the table of BLEU-4 and CIDEr by size of the beam."""
  beams = sorted(
    {beam for runs in rows.values() for run in runs.values() for beam in run}
  )
  largest = beams[-1]
  header = ['']
  header += [f'BLEU-4, beam {beam}' for beam in beams]
  header += [f'{largest} to {BEAM}', 'paper', 'same sign']
  header += [f'CIDEr, beam {beam}' for beam in beams]
  header.append(f'{largest} to {BEAM}')
  lines = []
  for lesson in LESSONS:
    gained = beam_gain(rows, lesson.key, 'bleu_4', largest)
    if not gained:
      continue
    lines.append(
      [
        lesson.title,
        *(_cell(spread(rows, lesson.key, beam, 'bleu_4')) for beam in beams),
        _cell(gained, sign='+'),
        _PAPER_BEAM,
        agreement(gained),
        *(
          _cell(spread(rows, lesson.key, beam, 'cider'), 1, 3) for beam in beams
        ),
        _cell(beam_gain(rows, lesson.key, 'cider', largest), 1, 3, sign='+'),
      ]
    )
  return markdown(header, lines)


Tokenized = dict[int, list[str]]


def tokenize(captions: Mapping[int, Sequence[str]]) -> Tokenized:
  """Returns the captions of each image, tokenized as for scores."""
  tokens = iter(
    caption_scores.tokenize([text for of in captions.values() for text in of])
  )
  return {
    image_id: [next(tokens) for _ in of] for image_id, of in captions.items()
  }


def novelty_table(
  rows: Rows,
  beam: int,
  captions_of: Callable[[str, str], Tokenized],
  references: Tokenized,
  training: set[str],
) -> str:
  """Returns the table of captions that are, and are not, in the training set.

  Args:
    rows: see `read_rows`.
    beam: size of the beam. Runs that have no such are left out.
    captions_of: returns the captions of a run of a row, tokenized.
    references: of all images.
    training: captions of the training set, tokenized.
  """
  header = [
    '',
    'best captions in the training set',
    f'new ones of the best {N_BEST}',
    'BLEU-4 of the best',
    '... of the new ones',
    '... of those in the training set',
  ]
  lines = [['the paper, on MSCOCO', '80 %', 'about half', '', '', 'similar']]
  for lesson in LESSONS:
    found = [
      diversity.novelty(
        references, captions_of(lesson.key, run), training, N_BEST
      )
      for run, scores in rows.get(lesson.key, {}).items()
      if beam in scores
    ]
    if not found:
      continue
    cells = []
    for i, values in enumerate(zip(*found)):
      cells.append(Spread.of(values).text() + (' %' if i < 2 else ''))
    lines.append([lesson.title, *cells])
  return markdown(header, lines)


def n_best_table(
  n_best: Tokenized, training: set[str], images: int = 4, captions: int = 5
) -> str:
  """Returns a table of the best captions of some images, the new ones bold.

  Args:
    n_best: captions of each image, the best first.
    training: captions of the training set, tokenized.
    images: number of images, evenly from all.
    captions: number of captions of each.
  """
  ids = list(n_best)
  count = min(images, len(ids))
  chosen = [ids[i * len(ids) // count] for i in range(count)]
  lines = [
    [
      str(image_id),
      '<br>'.join(
        text if text in training else f'**{text}**'
        for text in n_best[image_id][:captions]
      ),
    ]
    for image_id in chosen
  ]
  return markdown(['image id', 'captions, the best first'], lines)


def draw(rows: Rows) -> 'figure_lib.Figure':
  """Returns a matplotlib Figure: BLEU-4 and CIDEr of the rows.

  A point is a run, a bar its mean with the standard deviation.

  Args:
    rows: see `read_rows`.
  """
  from matplotlib import figure

  shown = [lesson for lesson in LESSONS if lesson.key in rows]
  beams = sorted(
    {beam for runs in rows.values() for run in runs.values() for beam in run}
  )
  result = figure.Figure(figsize=(10, 5), layout='constrained')
  axes_of = result.subplots(1, 2, sharey=True)
  for axes, (metric, title, factor) in zip(
    axes_of, (('bleu_4', 'BLEU-4', 100), ('cider', 'CIDEr', 1))
  ):
    for i, beam in enumerate(beams):
      # Beams lie side by side within a row.
      shift = 0.22 * (i - (len(beams) - 1) / 2)
      for row, lesson in enumerate(shown):
        values = [
          factor * scores[beam][metric]
          for scores in rows[lesson.key].values()
          if metric in scores.get(beam, {})
        ]
        if not values:
          continue
        found = Spread.of(values)
        axes.errorbar(
          found.mean,
          row + shift,
          xerr=None if found.runs < 2 else found.deviation,
          fmt='o',
          markersize=6,
          capsize=3,
          color=f'C{i}',
          label=f'beam {beam}' if row == 0 else None,
        )
        axes.plot(
          values,
          [row + shift] * len(values),
          linestyle='',
          marker='|',
          color=f'C{i}',
          alpha=0.6,
        )
    axes.set_xlabel(title)
    axes.grid(axis='x', alpha=0.3)
  axes_of[0].set_yticks(range(len(shown)), [lesson.title for lesson in shown])
  axes_of[0].invert_yaxis()
  axes_of[0].legend()
  return result


def read_losses(directory: str, key: str) -> dict[str, curves.Scalars]:
  """Returns the scalars of the trainings of a row, by seed.

  Args:
    directory: of scripts/lessons.sh.
    key: of a lesson.
  """
  return {
    name.removeprefix(f'{key}-'): scalars
    for name in sorted(os.listdir(directory))
    if name.startswith(f'{key}-')
    and (scalars := curves.read_scalars(os.path.join(directory, name)))
  }


def draw_switch(
  frozen: Mapping[str, curves.Scalars], joint: Mapping[str, curves.Scalars]
) -> 'figure_lib.Figure':
  """Returns a matplotlib Figure: the loss before and after joint training begins.

  On the right is what is near to the switch.

  Args:
    frozen: scalars of the trainings before, by seed.
    joint: scalars of the joint trainings.
  """
  from matplotlib import figure

  result = figure.Figure(figsize=(10, 4), layout='constrained')
  whole, near = result.subplots(1, 2)
  begin = end = 0
  values = []
  for i, (seed, after) in enumerate(joint.items()):
    smoothed = after['losses/smoothed_loss']
    decay = [
      total.value - batch.value
      for total, batch in zip(
        after['losses/total_loss'], after['losses/batch_loss']
      )
    ]
    steps = [point.step for point in smoothed]
    losses = [point.value for point in smoothed]
    before = frozen[seed]['losses/smoothed_loss']
    begin, end = before[-1].step, max(end, steps[-1])
    with_decay = [sum(pair) for pair in zip(losses, decay)]
    values += losses + with_decay
    values += [p.value for p in before if p.step >= 2 * begin - end]
    for axes in (whole, near):
      axes.plot(
        [point.step for point in before],
        [point.value for point in before],
        color=f'C{i}',
        label=f'seed {seed}',
      )
      axes.plot(steps, losses, color=f'C{i}', marker='.')
      axes.plot(steps, with_decay, color=f'C{i}', linestyle=':')
  for axes in (whole, near):
    axes.axvline(begin, color='gray', linewidth=0.8)
    axes.set_xlabel('step')
    axes.grid(alpha=0.3)
  whole.set_ylabel('smoothed loss (nats per word)')
  whole.plot([], [], color='gray', linestyle=':', label='with weight decay')
  whole.legend()
  near.set_xlim(2 * begin - end, end)
  near.set_ylim(min(values) - 0.05, max(values) + 0.05)
  return result


def report(directory: str) -> str:
  """Returns all tables, in Markdown.

  Args:
    directory: of scripts/lessons.sh.

  Raises:
    ValueError: something is missing or cannot be read.
  """
  scores = os.path.join(directory, 'scores')
  rows = read_rows(scores)
  largest = max(
    beam for runs in rows.values() for run in runs.values() for beam in run
  )
  pattern = os.path.join(directory, 'shards', '{}-?????-of-?????')
  training = scoring.training_captions(
    pattern.format('train'), caption_scores.tokenize
  )
  assert training
  references = tokenize(
    {
      image_id: list(captions)
      for image_id, captions in scoring.references_of_shards(
        shards.list_files(pattern.format('val'))
      ).items()
    }
  )

  def captions_of(key: str, run: str) -> Tokenized:
    name = f'{key}-{run}' if run else key
    return tokenize(
      beam_sweep.read_captions(os.path.join(scores, name), largest, 0.0)
    )

  example = [key for key in ('sampled', *rows) if key in rows][0]
  parts = {
    f'Lessons, beam {BEAM}': lessons_table(rows),
    'Beams': beam_table(rows),
    f'Novelty, beam {largest}': novelty_table(
      rows, largest, captions_of, references, training
    ),
    f'N-best captions of {example}, beam {largest}': n_best_table(
      captions_of(example, next(iter(rows[example]))), training
    ),
  }
  return '\n\n'.join(f'## {title}\n\n{part}' for title, part in parts.items())


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the program and returns its exit status."""
  parser = argparse.ArgumentParser(
    description='Makes the tables and the plots of scripts/lessons.sh.'
  )
  parser.add_argument(
    '--directory', required=True, help='the LESSONS_DIR of scripts/lessons.sh'
  )
  args = parser.parse_args(argv)
  try:
    text = report(args.directory)
    plots = {
      'lessons.png': draw(read_rows(os.path.join(args.directory, 'scores')))
    }
  except ValueError as error:
    parser.error(str(error))
  print(text)
  with files.replacing(os.path.join(args.directory, 'lessons.md')) as temporary:
    with open(temporary, 'w', encoding='utf-8') as f:
      f.write(text + '\n')
  joint = read_losses(args.directory, 'joint')
  if joint:
    plots['switch.png'] = draw_switch(
      read_losses(args.directory, 'frozen'), joint
    )
  for name, figure in plots.items():
    path = os.path.join(args.directory, name)
    files.write_figure(path, figure)
    print(f'Wrote {path}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
