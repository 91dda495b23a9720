# SPDX-License-Identifier: Apache-2.0
"""All scores of a set of captions, and a table of those of several sets."""

from collections.abc import Sequence

from im2txt.metrics import caption_scores
from im2txt.metrics import diversity
from im2txt.metrics import resampling

METRICS = caption_scores.METRICS + diversity.MEASURES + diversity.SET_MEASURES


def check_names(names: Sequence[str], flag: str) -> None:
  """Raises ValueError if one of the names is no metric.

  Args:
    names: of metrics.
    flag: which gave them, e.g. '--metrics'.
  """
  for name in names:
    if name == 'perplexity':
      raise ValueError(
        f'{flag}={",".join(names)}: perplexity is always computed; leave it out'
      )
    if name not in METRICS:
      raise ValueError(
        f'{flag}={",".join(names)}: {name!r} is none of {", ".join(METRICS)}'
      )


def summarize(
  references,
  n_best,
  training=None,
  metrics=METRICS,
  split=caption_scores.tokenize,
):
  """Returns the first of what `measure` returns."""
  return measure(references, n_best, training, metrics, split)[0]


def measure(
  references,
  n_best,
  training=None,
  metrics=METRICS,
  split=caption_scores.tokenize,
):
  """Returns the scores that need captions only.

  Args:
    references: dict, image id -> captions of humans; may have more images.
    n_best: dict, image id -> list of captions, the best first.
    training: set of training captions, tokenized by `split`; None if not
      known.
    metrics: names out of METRICS to be computed.
    split: what tokenizes a list of captions.

  Returns:
    (dict, `caption_scores.Measured`). The first, name -> number: `images`, the
    scores of the best captions, `diversity.diversity` of these (unless
    `metrics` are others), `diversity.of_sets` of all captions, and with
    `training` also `best_in_training` and `n_best_in_training`, the shares
    found there.

  Raises:
    ValueError: an image has no reference.
  """
  strangers = [image_id for image_id in n_best if image_id not in references]
  if strangers:
    raise ValueError(
      f'{len(strangers)} images have no caption to score against, such as '
      f'image_id {strangers[0]!r}: give the references of the same '
      'images'
    )
  # Whatever the order of the captions, as COCO's code has it.
  best = {
    image_id: n_best[image_id][0]
    for image_id in references
    if image_id in n_best
  }
  measured = caption_scores.measure(
    {image_id: references[image_id] for image_id in best}, best, metrics, split
  )
  scores = {'images': len(best), **measured.scores}
  if training is None and not set(metrics) & {
    *diversity.MEASURES,
    *diversity.SET_MEASURES,
  }:
    return scores, measured
  tokenized = _split_sets(n_best, split)
  best = [captions[0] for captions in tokenized.values()]
  scores.update(
    (name, value)
    for name, value in diversity.diversity(best).items()
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
    scores['best_in_training'] = diversity.share_in_training(best, training)
    scores['n_best_in_training'] = diversity.share_in_training(
      [text for captions in tokenized.values() for text in captions], training
    )
  return scores, measured


def compare(
  references,
  captions,
  measured,
  split=caption_scores.tokenize,
  resamples=resampling.RESAMPLES,
  seed=resampling.SEED,
):
  """Compares the captions of two runs, of the images that both have.

  Args:
    references: dict, image id -> captions of humans.
    captions: pair of dict, image id -> caption: of a run, and of what it is
      compared with.
    measured: pair of their `caption_scores.Measured`.
    split: what tokenizes a list of captions.
    resamples: see `resampling.compare`.
    seed: likewise.

  Returns:
    (what `resampling.compare` returns, number of images).

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
  return resampling.compare(*measured, resamples, seed), len(common)


def image_rows(name, measured, captions):
  """Returns what there is to say of each image, a list of dict.

  Args:
    name: str, of the run.
    measured: its `caption_scores.Measured`.
    captions: dict, image id -> caption.
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


def comparison_table(differences):
  """Returns a table of differences, a line for each score.

  Args:
    differences: dict, name of the score -> `resampling.Difference`.
  """
  columns = {
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


def _split_sets(sets, split):
  """Returns a dict of lists of captions with all captions tokenized."""
  tokens = iter(
    split([text for captions in sets.values() for text in captions])
  )
  return {
    image_id: [next(tokens) for _ in captions]
    for image_id, captions in sets.items()
  }


def table(runs):
  """Returns a table of scores, a line each, a column for each run.

  Args:
    runs: dict, name -> dict, name of the score -> number.
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
