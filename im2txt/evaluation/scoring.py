# SPDX-License-Identifier: Apache-2.0
"""Scores captions: from results files, or of a model for the images of shards.

A run is a set of captions, one per image. TensorFlow is imported only where a
model captions.
"""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import math
import os
from typing import NamedTuple
from typing import TYPE_CHECKING

from absl import logging

from im2txt.data import caption_files
from im2txt.data import shards
from im2txt.evaluation import score_options
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import resampling
from im2txt.metrics import summary
from im2txt.runtime.progress import Progress
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

if TYPE_CHECKING:
  import numpy.typing as npt

  from im2txt.inference_utils import captioner as captioner_lib
  from im2txt.runtime import distribution

# Image id -> one caption, and image id -> one or more.
Captions = dict[int, str]
References = Mapping[int, Sequence[str]]


class Run(NamedTuple):
  """One set of captions with its scores.

  Attributes:
    captions: image id -> caption.
    scores: name -> number.
    measured: the scores, with the statistics that confidence intervals need.
  """

  captions: Captions
  scores: dict[str, float]
  measured: caption_scores.Measured


@dataclasses.dataclass(frozen=True)
class Sources:
  """What captions are scored with.

  Attributes:
    files: shard file names, empty without --input_file_pattern.
    prefixes: of checkpoints, empty without --checkpoint_path.
    stamp: of the vocabulary of the data; None if not known.
    split: what tokenizes captions.
    references: those of --annotations_file; None without.
    training: tokenized captions of --train_file_pattern; None without.
  """

  files: list[str]
  prefixes: list[str]
  stamp: vocabulary_stamp.Stamp | None
  split: caption_scores.Split
  references: References | None
  training: set[str] | None


def open_sources(options: score_options.ScoreOptions) -> Sources:
  """Opens what the options name.

  Raises:
    ValueError: a file cannot be read, or the vocabularies are not the same.
  """
  files = prefixes = []
  if options.input_file_pattern:
    files = shards.list_files(options.input_file_pattern)
  if options.checkpoint_path:
    from im2txt import checkpoints

    # Only once: a newer checkpoint may appear in a directory meanwhile.
    prefixes = [
      checkpoints.resolve(path)
      for path in checkpoints.split_paths(options.checkpoint_path)
    ]
    _check_vocabulary(options.vocab_file, files)
  if options.annotations_file and not prefixes:
    stamp = vocabulary_stamp.load(os.path.dirname(options.annotations_file))
  else:
    stamp = vocabulary_stamp.first_known(
      [
        *map(vocabulary_stamp.of_checkpoint, prefixes),
        *vocabulary_stamp.of_shards(files),
      ]
    )
  split = split_of(stamp)
  references = None
  if options.annotations_file:
    references = caption_files.read_references(
      options.annotations_file, '--annotations_file'
    )
  training = training_captions(options.train_file_pattern, split)
  return Sources(files, prefixes, stamp, split, references, training)


def split_of(stamp: vocabulary_stamp.Stamp | None) -> caption_scores.Split:
  """Returns what tokenizes captions of a data set for its scores.

  Args:
    stamp: of its vocabulary; None if not known, then it is English.
  """
  return tokenizer.for_scores(stamp) or caption_scores.tokenize


def training_captions(
  file_pattern: str, split: caption_scores.Split
) -> set[str] | None:
  """Returns the captions of --train_file_pattern, None without.

  Args:
    file_pattern: of shards; '' for none.
    split: what tokenizes captions.
  """
  if not file_pattern:
    return None
  files = shards.list_files(file_pattern, 'train_file_pattern')
  return set(split(shards.distinct_captions(files)))


def _check_vocabulary(vocab_file: str, files: Sequence[str]) -> None:
  """Raises ValueError if shards say that --vocab_file is not theirs."""
  vocab = vocabulary_stamp.of_vocabulary(vocabulary.Vocabulary(vocab_file))
  # For shards without a stamp each id will be compared with its word.
  vocabulary_stamp.check(
    [vocab, *(h for h in vocabulary_stamp.of_shards(files) if h.stamp)],
    'give the shards that were made with the vocabulary of the model',
  )


def score_checkpoint(
  options: score_options.ScoreOptions,
  search: search_config.SearchConfig,
  sources: Sources,
) -> tuple[Run, References]:
  """Captions the images of shards with a model, and scores the captions.

  Args:
    options: what to score.
    search: how captions are searched.
    sources: of these options.

  Returns:
    (the run, the references that it was scored against).

  Raises:
    ValueError: no image can be decoded, or one has no reference.
  """
  import numpy as np

  from im2txt.evaluation import caption_evaluator
  from im2txt.inference_utils import likelihood

  captioner, replicas = _load(options, search, sources)
  scorer = likelihood.Likelihood(captioner.model, replicas=replicas)
  examples = shards.captions_by_image(
    sources.files, options.max_images, captioner.vocab
  )
  n_best: dict[int, list[str]] = {}
  features, losses = [], []
  for found, encoded in _caption(options, captioner, sources, examples):
    n_best.update(found)
    features.append(encoded)
    pairs = [
      (row, ids)
      for row, image_id in zip(encoded, found)
      for ids in examples[image_id][1]
    ]
    if pairs:
      rows, ids = zip(*pairs)
      losses.append(scorer.cross_entropies(np.stack(rows), ids))
  if not n_best:
    raise ValueError(
      f'--input_file_pattern={options.input_file_pattern} has no image that '
      'can be decoded'
    )
  references = sources.references
  if references is None:
    references = {
      image_id: captions for image_id, (captions, _) in examples.items()
    }
  scores, measured = summary.measure(
    references, n_best, sources.training, split=sources.split
  )
  if losses:
    scores['perplexity'] = math.exp(
      np.concatenate(losses).mean(dtype=np.float64)
    )
  if options.ranking:
    scores.update(
      caption_evaluator.rank(
        scorer,
        np.concatenate(features)[: options.ranking_images],
        [
          examples[i][1][: options.ranking_captions_per_image]
          for i in list(n_best)[: options.ranking_images]
        ],
      )
    )
  best = {i: captions[0] for i, captions in sorted(n_best.items())}
  return Run(best, scores, measured), references


def caption_share(
  options: score_options.ScoreOptions,
  search: search_config.SearchConfig,
  sources: Sources,
) -> Captions:
  """Captions the images of --share; arguments as of `score_checkpoint`."""
  captioner, _ = _load(options, search, sources)
  examples = shards.captions_by_image(
    sources.files, options.max_images, captioner.vocab
  )
  start, end = options.share_of_images().bounds(len(examples))
  mine = dict(itertools.islice(examples.items(), start, end))
  return {
    image_id: captions[0]
    for found, _ in _caption(options, captioner, sources, mine, start)
    for image_id, captions in found.items()
  }


def _load(
  options: score_options.ScoreOptions,
  search: search_config.SearchConfig,
  sources: Sources,
) -> 'tuple[captioner_lib.Captioner, distribution.Replicas]':
  """Returns the model and its replicas; arguments as of `score_checkpoint`."""
  from im2txt.inference_utils import captioner as captioner_lib
  from im2txt.runtime import distribution

  replicas = distribution.make_local(options.distribution)
  return captioner_lib.Captioner(
    sources.prefixes, options.vocab_file, search, options.precision, replicas
  ), replicas


def _caption(
  options: score_options.ScoreOptions,
  captioner: 'captioner_lib.Captioner',
  sources: Sources,
  examples: Mapping[int, object],
  first: int = 0,
) -> 'Iterator[tuple[dict[int, list[str]], npt.NDArray]]':
  """Captions images of shards, batch by batch.

  Args:
    options: what to score.
    captioner: writes captions.
    sources: of these options.
    examples: has the ids of the images.
    first: number of the first of these images among all.

  Yields:
    (image id -> captions, the best first; the features of these images).
  """
  from im2txt.inference_utils import batches

  count = first
  with Progress('Captioning', len(examples), 'images') as progress:
    for image_ids, encoded in batches.encode_batches(
      captioner,
      shards.image_batches(
        sources.files, examples, options.inference_batch_size
      ),
      progress,
    ):
      found = captioner.decoder.caption(encoded, count)
      count += len(image_ids)
      yield (
        {
          image_id: [caption.text for caption in captions]
          for image_id, captions in zip(image_ids, found)
        },
        encoded,
      )


def references_of_shards(files: Sequence[str]) -> References:
  """Returns the captions of shards, by image id."""
  return {
    image_id: captions
    for image_id, (captions, _) in shards.captions_by_image(files).items()
  }


def read_results(
  options: score_options.ScoreOptions,
  references: References | None,
  taken: Collection[str] = (),
) -> dict[str, Captions]:
  """Reads --results_file, and --compare_with as the last.

  Args:
    options: what to score.
    references: what to score against; None if nothing will be scored.
    taken: names of runs that there are already.

  Returns:
    Name -> captions. A run is named after its file, without directory and
    ending, or by the whole path if that is not unique.

  Raises:
    ValueError: a file cannot be read, or lacks captions of some images.
  """
  flag_of = dict.fromkeys(options.results_files, '--results_file')
  if options.compare_with:
    flag_of[options.compare_with] = '--compare_with'
  stems = [os.path.splitext(os.path.basename(path))[0] for path in flag_of]
  named = [
    (stem if stems.count(stem) == 1 and stem not in taken else path, [path])
    for stem, path in zip(stems, flag_of)
  ]
  if options.join_results:
    count = len(options.results_files)
    names, shares = zip(*named[:count])
    named[:count] = [('+'.join(names), list(itertools.chain(*shares)))]
  results = {}
  for name, paths in named:
    results[name] = _read_shares(paths, flag_of[paths[0]])
    if options.max_images and references is not None:
      # A model captioned no others.
      results[name] = {
        i: caption for i, caption in results[name].items() if i in references
      }
    if references is not None:
      _check_all_are_there(
        f'{flag_of[paths[0]]} {",".join(paths)}',
        results[name],
        references,
        options.allow_missing_results,
      )
  return results


def _read_shares(paths: Sequence[str], flag: str) -> Captions:
  """Reads results files that have captions of different images.

  Raises:
    ValueError: a file cannot be read, or two have captions of the same image.
  """
  captions: Captions = {}
  for path in paths:
    share = caption_files.read_results(path, flag)
    twice = sorted(captions.keys() & share.keys())
    if twice:
      raise ValueError(
        f'{flag} {",".join(paths)}: {path} has a caption of image_id '
        f'{twice[0]}, which another one has too: give --join_results each '
        'share of one run, once'
      )
    captions.update(share)
  return captions


def _check_all_are_there(
  source: str, results: Captions, references: References, allow_missing: bool
) -> None:
  """Raises ValueError, or warns, if there are no captions of some images."""
  missing = [i for i in references if i not in results]
  if not missing or len(missing) == len(references):  # Other images entirely.
    return
  message = (
    f'{source} has captions of {len(references) - len(missing)} of the '
    f'{len(references)} images, none of image_id {caption_files.first(missing)}'
  )
  if not allow_missing:
    raise ValueError(
      f'{message}: caption all, or give --allow_missing_results to leave these '
      'out'
    )
  logging.warning('%s', message)


def score_captions(
  captions: Captions, references: References, sources: Sources
) -> Run:
  """Scores captions from a results file.

  Raises:
    ValueError: an image has no reference.
  """
  scores, measured = summary.measure(
    references,
    {i: [text] for i, text in captions.items()},
    sources.training,
    split=sources.split,
  )
  return Run(captions, scores, measured)


def compare(
  options: score_options.ScoreOptions,
  runs: Mapping[str, Run],
  references: References,
  sources: Sources,
) -> dict[str, dict[str, resampling.Difference]]:
  """Compares each run with the last, that of --compare_with.

  Returns:
    Name of a run -> name of a score -> difference.

  Raises:
    ValueError: a run has captions of other images.
  """
  *names, baseline = runs
  comparisons = {}
  for name in names:
    run, other = runs[name], runs[baseline]
    try:
      comparisons[name], images = summary.compare(
        references,
        (run.captions, other.captions),
        (run.measured, other.measured),
        sources.split,
        options.resamples,
        options.resampling_seed,
      )
    except ValueError as error:
      raise ValueError(
        f'--compare_with={options.compare_with} and {name}: {error}; give '
        'captions of the same images'
      ) from error
    logging.info('%s and %s compared on %d images', name, baseline, images)
  return comparisons
