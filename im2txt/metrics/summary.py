# SPDX-License-Identifier: Apache-2.0
"""All scores of a set of captions, and a table of those of several sets."""

from im2txt.metrics import caption_scores
from im2txt.metrics import diversity

METRICS = (caption_scores.METRICS + diversity.MEASURES
           + diversity.SET_MEASURES)


def summarize(references, n_best, training=None, metrics=METRICS,
              split=caption_scores.tokenize):
  """Returns the scores that need captions only.

  Args:
    references: dict, image id -> captions of humans; may have more images.
    n_best: dict, image id -> list of captions, the best first.
    training: set of training captions, tokenized by `split`; None if not
      known.
    metrics: names out of METRICS to be computed.
    split: what tokenizes a list of captions.

  Returns:
    dict, name -> number: `images`, what `caption_scores.score` gives of the
    best captions, `diversity.diversity` of these (unless `metrics` are
    others), `diversity.of_sets` of all, and with `training` also
    `best_in_training` and `n_best_in_training`, the shares found there.

  Raises:
    ValueError: an image has no reference.
    OSError: Java's tokenizer failed.
  """
  strangers = [image_id for image_id in n_best if image_id not in references]
  if strangers:
    raise ValueError(
        f'{len(strangers)} images have no caption to score against, such as '
        f'image_id {strangers[0]!r}: give the references of the same '
        'images')
  best = {image_id: captions[0] for image_id, captions in n_best.items()}
  scores = {'images': len(best), **caption_scores.score(
      {image_id: references[image_id] for image_id in best}, best, metrics,
      split)}
  if training is None and not set(metrics) & {
      *diversity.MEASURES, *diversity.SET_MEASURES}:
    return scores
  tokenized = _split_sets(n_best, split)
  best = [captions[0] for captions in tokenized.values()]
  scores.update((name, value)
                for name, value in diversity.diversity(best).items()
                if name in metrics)
  if set(metrics) & set(diversity.SET_MEASURES):
    scores.update(diversity.of_sets(
        _split_sets({image_id: references[image_id] for image_id in n_best},
                    split), tokenized, metrics))
  if training is not None:
    scores['best_in_training'] = diversity.share_in_training(best, training)
    scores['n_best_in_training'] = diversity.share_in_training(
        [text for captions in tokenized.values() for text in captions],
        training)
  return scores


def _split_sets(sets, split):
  """Returns a dict of lists of captions with all captions tokenized."""
  tokens = iter(split([text for captions in sets.values() for text in captions]))
  return {image_id: [next(tokens) for _ in captions]
          for image_id, captions in sets.items()}


def table(runs):
  """Returns a table of scores, a line each, a column for each run.

  Args:
    runs: dict, name -> dict, name of the score -> number.
  """
  names = list(dict.fromkeys(
      name for scores in runs.values() for name in scores))
  rows = [['', *runs]]
  for name in names:
    row = [name]
    for scores in runs.values():
      value = scores.get(name, '-')
      row.append(f'{value:.4f}' if isinstance(value, float) else str(value))
    rows.append(row)
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  return '\n'.join(
      '  '.join([row[0].ljust(widths[0]),
                 *(cell.rjust(width)
                   for cell, width in zip(row[1:], widths[1:]))])
      for row in rows)
