# SPDX-License-Identifier: Apache-2.0
"""All scores of a set of captions, and tables of scores of several sets."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from typing import Any
from typing import TypeVar

from im2txt.metrics import caption_scores
from im2txt.metrics import diversity
from im2txt.metrics import resampling

_Id = TypeVar('_Id', bound=int | str)

METRICS = caption_scores.METRICS + diversity.MEASURES + diversity.SET_MEASURES


def check_names(
  names: Sequence[str], flag: str, known: Sequence[str] = METRICS
) -> None:
  """Raises ValueError if a name is not a metric.

  Args:
    names: of metrics.
    flag: where they come from, for example '--metrics'.
    known: the names that the flag takes.
  """
  for name in names:
    if name == 'perplexity':
      raise ValueError(
        f'{flag}={",".join(names)}: perplexity is always computed; leave it out'
      )
    if name not in known:
      raise ValueError(
        f'{flag}={",".join(names)}: {name!r} must be one of ' + ', '.join(known)
      )


def summarize(
  references: Mapping[_Id, Sequence[str]],
  n_best: Mapping[_Id, Sequence[str]],
  training: Set[str] | None = None,
  metrics: Collection[str] = METRICS,
  split: caption_scores.Split = caption_scores.tokenize,
) -> dict[str, float]:
  """Returns the first result of `measure`, which takes the same arguments."""
  return measure(references, n_best, training, metrics, split)[0]


def measure(
  references: Mapping[_Id, Sequence[str]],
  n_best: Mapping[_Id, Sequence[str]],
  training: Set[str] | None = None,
  metrics: Collection[str] = METRICS,
  split: caption_scores.Split = caption_scores.tokenize,
) -> tuple[dict[str, float], caption_scores.Measured]:
  """Computes the scores that need only captions.

  Args:
    references: captions of each image, by image id. There may be more images
      than in `n_best`.
    n_best: captions of each image, by image id, the best first.
    training: training captions, tokenized by `split`; None if not known.
    metrics: names from METRICS.
    split: tokenizes captions.

  Returns:
    (scores by name; more about the scores of the best captions). The first has
    `images`, the number of images; the scores and the diversity of the best
    captions; `diversity.of_sets` of all captions; and with `training`
    `best_in_training` and `n_best_in_training`, the shares of captions that are
    in the training set.

  Raises:
    ValueError: an image has no reference.
  """
  unknown = [image_id for image_id in n_best if image_id not in references]
  if unknown:
    raise ValueError(
      f'{len(unknown)} images have no reference, such as image_id '
      f'{unknown[0]!r}: give the references of the same images'
    )
  # In the order of the references, as in COCO's code.
  best = {
    image_id: n_best[image_id][0]
    for image_id in references
    if image_id in n_best
  }
  measured = caption_scores.measure(
    {image_id: references[image_id] for image_id in best}, best, metrics, split
  )
  scores: dict[str, float] = {'images': len(best), **measured.scores}
  if training is None and not set(metrics) & {
    *diversity.MEASURES,
    *diversity.SET_MEASURES,
  }:
    return scores, measured
  tokenized = _split_sets(n_best, split)
  first = [captions[0] for captions in tokenized.values()]
  scores.update(
    (name, value)
    for name, value in diversity.diversity(first).items()
    if name in metrics
  )
  if set(metrics) & set(diversity.SET_MEASURES):
    scores.update(
      diversity.of_sets(
        _split_sets(
          {image_id: references[image_id] for image_id in n_best}, split
        ),
        tokenized,
        metrics,
      )
    )
  if training is not None:
    scores['best_in_training'] = diversity.share_in_training(first, training)
    scores['n_best_in_training'] = diversity.share_in_training(
      [text for captions in tokenized.values() for text in captions], training
    )
  return scores, measured


def compare(
  references: Mapping[_Id, Sequence[str]],
  captions: tuple[Mapping[_Id, str], Mapping[_Id, str]],
  measured: Sequence[caption_scores.Measured],
  split: caption_scores.Split = caption_scores.tokenize,
  resamples: int = resampling.RESAMPLES,
  seed: int = resampling.SEED,
) -> tuple[dict[str, resampling.Difference], int]:
  """Compares the captions of two runs on the images that both have.

  Args:
    references: captions of each image, by image id.
    captions: of a run and of its baseline, by image id.
    measured: scores of the run and of its baseline.
    split: tokenizes captions.
    resamples: see `resampling.compare`.
    seed: see `resampling.compare`.

  Returns:
    (differences by metric; number of images that both have).

  Raises:
    ValueError: no image has captions of both.
  """
  common = [
    image_id
    for image_id in references
    if all(image_id in of_run for of_run in captions)
  ]
  if not common:
    raise ValueError('no image has captions of both')
  if any(m.image_ids != common for m in measured):
    measured = [
      caption_scores.measure(
        {i: references[i] for i in common},
        {i: of_run[i] for i in common},
        list(m.scores),
        split,
      )
      for m, of_run in zip(measured, captions)
    ]
  ours, theirs = measured
  return resampling.compare(ours, theirs, resamples, seed), len(common)


def image_rows(
  name: str, measured: caption_scores.Measured, captions: Mapping[Any, str]
) -> list[dict[str, Any]]:
  """Returns for each image a dict of run, image id, caption and scores.

  Args:
    name: of the run.
    measured: its scores.
    captions: its captions, by image id.
  """
  scores = {
    metric: values.tolist() for metric, values in measured.image_scores.items()
  }
  return [
    {
      'run': name,
      'image_id': image_id,
      'caption': captions[image_id],
      **{metric: values[i] for metric, values in scores.items()},
    }
    for i, image_id in enumerate(measured.image_ids)
  ]


def comparison_table(differences: Mapping[str, resampling.Difference]) -> str:
  """Returns a table of differences, with a line per score.

  Args:
    differences: by name of the score.
  """
  columns: dict[str, Callable[[resampling.Difference], str]] = {
    'difference': lambda d: f'{d.value:+.4f}',
    'interval': lambda d: f'{d.low:+.4f} to {d.high:+.4f}',
    'p': lambda d: f'{d.p_value:.4f}',
  }
  return table(
    {
      column: {name: text(d) for name, d in differences.items()}
      for column, text in columns.items()
    }
  )


def _split_sets(
  sets: Mapping[_Id, Sequence[str]], split: caption_scores.Split
) -> dict[_Id, list[str]]:
  """Returns the captions of each image, tokenized."""
  tokens = iter(
    split([text for captions in sets.values() for text in captions])
  )
  return {
    image_id: [next(tokens) for _ in captions]
    for image_id, captions in sets.items()
  }


def table(runs: Mapping[str, Mapping[str, float | str]]) -> str:
  """Returns a table of scores, with a line per score and a column per run.

  Args:
    runs: for each run, by its name, the scores by their names.
  """
  names = list(
    dict.fromkeys(name for scores in runs.values() for name in scores)
  )
  rows = [['', *runs]]
  for name in names:
    row = [name]
    for scores in runs.values():
      value = scores.get(name, '-')
      row.append(f'{value:.4f}' if isinstance(value, float) else str(value))
    rows.append(row)
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  return '\n'.join(
    '  '.join(
      [
        row[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])),
      ]
    )
    for row in rows
  )
