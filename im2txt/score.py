# SPDX-License-Identifier: Apache-2.0
r"""Scores captions against those of humans: BLEU, METEOR, ROUGE-L, CIDEr, ...

Captions that some program wrote, in the JSON format of COCO's evaluation
server; several files make one table, side by side:

  score --annotations_file=captions_val2014.json --results_file=a.json,b.json

A checkpoint, which captions every image of some shards first (several,
separated by commas, are an ensemble):

  score --checkpoint_path=train_dir --vocab_file=word_counts.txt \
      --input_file_pattern='val-?????-of-00004' --results_output=a.json

The human captions are those of --annotations_file, or else of the shards. A
table is printed; --output_json takes the same: {"bleu_1": 0.6, ...} of one
run, {"a": {"bleu_1": 0.6, ...}, "b": {...}} of several. Scores are between 0
and 1, but cider between 0 and 10. Below the table stand the interval of each
score and a line of what the scores depend on; docs/scores.md explains both.

Whether one run is better than another:

  score --annotations_file=captions_val2014.json --results_file=a.json \
      --compare_with=b.json

For COCO's evaluation server, with the captions of val2014 in --results_file:

  score --results_file=val.json --test2014_results=test.json \
      --server_zip=results.zip --server_name=NAME

Captions are tokenized as COCO does, which is English, unless vocabulary.json
beside the checkpoint, the annotations or the shards names another tokenizer
than nltk: then by that.
"""

import csv
import math
import os
import sys

from absl import flags
from absl import logging

from im2txt.data import caption_files
from im2txt.data import coco_server
from im2txt.data import shards
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import resampling
from im2txt.metrics import summary
from im2txt.runtime import files as files_lib
from im2txt.runtime import program
from im2txt.runtime.progress import Progress
from im2txt.text import tokenizer
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

FLAGS = flags.FLAGS


def define_flags():
  flags.DEFINE_string(
    'annotations_file',
    '',
    'COCO captions JSON file to score against; without it, the captions in '
    "--input_file_pattern. Its images need no file names. Karpathy's JSON, "
    'and CSV or JSONL with image_id and caption, are taken too.',
  )
  flags.DEFINE_string(
    'results_file',
    '',
    'COCO results JSON files to score, separated by commas: [{"image_id": '
    '42, "caption": "a man"}, ...], or such an object per line.',
  )
  flags.DEFINE_bool(
    'allow_missing_results',
    False,
    'Score --results_file though it has no caption of some images: these are '
    'left out of its scores.',
  )
  flags.DEFINE_string(
    'checkpoint_path',
    '',
    'Model checkpoint to score in the place of results: a file prefix, or a '
    'directory (its latest is taken). Several, separated by commas, are '
    'scored as an ensemble.',
  )
  flags.DEFINE_string(
    'vocab_file', '', 'Vocabulary the model was trained with.'
  )
  flags.DEFINE_string(
    'input_file_pattern',
    '',
    'File pattern of sharded TFRecord files whose images are captioned.',
  )
  flags.DEFINE_string(
    'train_file_pattern',
    '',
    'File pattern of the shards the model was trained on: adds the shares of '
    'captions that are copied from them.',
  )
  flags.DEFINE_integer(
    'max_images', 0, 'Score only so many images of the shards; 0: all.'
  )
  search_config.define_flags()
  flags.DEFINE_integer('inference_batch_size', 8, 'Images captioned at once.')
  flags.DEFINE_bool(
    'ranking',
    False,
    'Also find captions by image and images by caption, by the likelihood '
    'that the checkpoint gives them. The cost grows with images times '
    'captions.',
  )
  flags.DEFINE_integer(
    'ranking_images', 1000, 'Images that --ranking takes, the first ones.'
  )
  flags.DEFINE_integer(
    'ranking_captions_per_image',
    1,
    'Captions of each image that --ranking takes; 5 is what papers do.',
  )
  flags.DEFINE_string('output_json', '', 'File for the scores.')
  flags.DEFINE_string(
    'compare_with',
    '',
    'COCO results JSON file to compare each run with: prints the difference '
    'of each score, its interval, and the p value.',
  )
  flags.DEFINE_integer(
    'resamples',
    resampling.RESAMPLES,
    'Sets of images drawn for the intervals, and ways to swap captions for '
    'the p value; 0: none.',
    lower_bound=0,
  )
  flags.DEFINE_integer(
    'resampling_seed',
    resampling.SEED,
    'Which sets of images are drawn.',
    lower_bound=0,
    upper_bound=2**32 - 1,
  )
  flags.DEFINE_string(
    'image_scores_output',
    '',
    'File for the caption and scores of each image: CSV if its name ends in '
    '.csv, else JSON.',
  )
  flags.DEFINE_string(
    'report_json', '', 'File for scores, intervals, signatures and comparisons.'
  )
  flags.DEFINE_string(
    'server_zip',
    '',
    "File for COCO's evaluation server: the captions of val2014, which are "
    'those of --results_file or --checkpoint_path, and --test2014_results. '
    'With --results_file nothing needs to be there to score against.',
  )
  flags.DEFINE_string(
    'test2014_results',
    '',
    'COCO results JSON file of test2014, for --server_zip.',
  )
  flags.DEFINE_string(
    'server_name', 'im2txt', 'Name in the file names within --server_zip.'
  )
  flags.DEFINE_string(
    'results_output',
    '',
    'File for the captions of --checkpoint_path, in the JSON format that '
    "COCO's evaluation server takes.",
  )


def check_vocabulary(files):
  """Raises ValueError if shards say that --vocab_file is not theirs."""
  vocab = vocabulary_stamp.of_vocabulary(
    vocabulary.Vocabulary(FLAGS.vocab_file)
  )
  # For shards without a stamp each id will be compared with its word.
  vocabulary_stamp.check(
    [vocab, *(h for h in vocabulary_stamp.of_shards(files) if h.stamp)],
    'give the shards that were made with the vocabulary of the model',
  )


def score_checkpoint(prefixes, files, references, training, split):
  """Captions the images of shards with a checkpoint.

  Args:
    prefixes: of the checkpoints, a list.
    files: shard file names.
    references: dict, image id -> captions, None for those of the shards.
    training: see `summary.summarize`.
    split: likewise.

  Returns:
    (dict, name -> number; `caption_scores.Measured`; dict, image id ->
    caption).
  """
  # TensorFlow is not needed to score results.
  import numpy as np

  from im2txt.evaluation import caption_evaluator
  from im2txt.inference_utils import captioner as captioner_lib
  from im2txt.inference_utils import likelihood

  captioner = captioner_lib.Captioner(
    prefixes, FLAGS.vocab_file, search_config.from_flags(FLAGS)
  )
  scorer = likelihood.Likelihood(captioner.model)
  examples = shards.captions_by_image(files, FLAGS.max_images, captioner.vocab)
  n_best, features, losses = {}, [], []
  with Progress('Captioning', len(examples), 'images') as progress:
    for image_ids, encoded in captioner_lib.encode_batches(
      captioner,
      shards.image_batches(files, examples, FLAGS.inference_batch_size),
      progress,
    ):
      n_best.update(
        zip(
          image_ids,
          (
            [caption.text for caption in n]
            for n in captioner.decoder.caption(encoded, len(n_best))
          ),
        )
      )
      features.append(encoded)
      pairs = [
        (row, ids)
        for row, image_id in zip(encoded, image_ids)
        for ids in examples[image_id][1]
      ]
      if pairs:
        rows, ids = zip(*pairs)
        losses.append(scorer.cross_entropies(np.stack(rows), ids))
  if not n_best:
    raise ValueError(
      f'--input_file_pattern={FLAGS.input_file_pattern} has no '
      'image that can be decoded'
    )
  if references is None:
    references = {
      image_id: captions for image_id, (captions, _) in examples.items()
    }
  scores, measured = summary.measure(references, n_best, training, split=split)
  if losses:
    scores['perplexity'] = math.exp(
      np.concatenate(losses).mean(dtype=np.float64)
    )
  if FLAGS.ranking:
    scores.update(
      caption_evaluator.rank(
        scorer,
        np.concatenate(features)[: FLAGS.ranking_images],
        [
          examples[i][1][: FLAGS.ranking_captions_per_image]
          for i in list(n_best)[: FLAGS.ranking_images]
        ],
      )
    )
  return (
    scores,
    measured,
    {image_id: captions[0] for image_id, captions in sorted(n_best.items())},
  )


def _check_all_are_there(flag, path, results, references):
  """Raises ValueError if a file has no captions of some images.

  Args:
    flag: str, which gave the file.
    path: of the file.
    results: dict, image id -> caption.
    references: dict, image id -> captions.
  """
  missing = [i for i in references if i not in results]
  if not missing or len(missing) == len(references):  # Other images entirely.
    return
  message = (
    f'{flag} {path} has captions of '
    f'{len(references) - len(missing)} of the {len(references)} '
    f'images, none of image_id {caption_files.first(missing)}'
  )
  if not FLAGS.allow_missing_results:
    raise ValueError(
      f'{message}: caption all, or give '
      '--allow_missing_results to leave these out'
    )
  logging.warning('%s', message)


def _has_references():
  """Returns whether flags name captions of humans."""
  return bool(FLAGS.annotations_file or FLAGS.input_file_pattern)


def _check_flags():
  """Raises ValueError for flags that do not go together."""
  if bool(FLAGS.results_file) == bool(FLAGS.checkpoint_path):
    raise ValueError('give either --results_file or --checkpoint_path')
  if FLAGS.checkpoint_path:
    program.require(FLAGS, 'vocab_file', 'input_file_pattern')
  elif not _has_references() and not FLAGS.server_zip:
    raise ValueError(
      'give --annotations_file, the captions of humans to '
      'score --results_file against'
    )
  if FLAGS.server_zip:
    if not FLAGS.test2014_results:
      raise ValueError(
        f'--server_zip={FLAGS.server_zip} needs '
        '--test2014_results, the captions of test2014'
      )
    coco_server.check_name(FLAGS.server_name, '--server_name')
    if len(files_lib.split_names(FLAGS.results_file)) > 1:
      raise ValueError(
        f'--results_file={FLAGS.results_file} should be one '
        'file for --server_zip, that of val2014'
      )
  elif FLAGS.test2014_results:
    raise ValueError('--test2014_results needs --server_zip')
  if FLAGS.compare_with and not FLAGS.resamples:
    raise ValueError('--compare_with needs --resamples above 0')
  if FLAGS.compare_with in files_lib.split_names(FLAGS.results_file):
    raise ValueError(
      f'--compare_with={FLAGS.compare_with} is one of '
      '--results_file: give another file'
    )
  if FLAGS.compare_with and not FLAGS.checkpoint_path and not _has_references():
    raise ValueError(
      '--compare_with needs --annotations_file, the captions of '
      'humans to score against'
    )
  if FLAGS.results_file and (FLAGS.ranking or FLAGS.results_output):
    raise ValueError('--ranking and --results_output need a --checkpoint_path')
  for name in (
    'inference_batch_size',
    'ranking_images',
    'ranking_captions_per_image',
  ):
    if getattr(FLAGS, name) < 1:
      raise ValueError(f'--{name}={getattr(FLAGS, name)} should be 1 or more')
  if FLAGS.max_images < 0:
    raise ValueError(f'--max_images={FLAGS.max_images} should be 0 or more')
  search_config.from_flags(FLAGS)
  program.require_output_directories(
    FLAGS,
    'output_json',
    'results_output',
    'image_scores_output',
    'report_json',
    'server_zip',
  )


def _files(flag):
  """Returns the shards that a flag names, None if it is empty."""
  pattern = getattr(FLAGS, flag)
  if not pattern:
    return None
  from im2txt.data import shards

  return shards.list_files(pattern, flag)


def main(_):
  _check_flags()
  files = _files('input_file_pattern')
  if FLAGS.checkpoint_path:
    from im2txt import checkpoints

    # Once: in a directory there may be a newer one by and by.
    prefixes = [
      checkpoints.resolve(path)
      for path in checkpoints.split_paths(FLAGS.checkpoint_path)
    ]
    check_vocabulary(files)
    stamp = vocabulary_stamp.first_known(
      [
        *map(vocabulary_stamp.of_checkpoint, prefixes),
        *vocabulary_stamp.of_shards(files),
      ]
    )
  elif FLAGS.annotations_file:
    stamp = vocabulary_stamp.load(os.path.dirname(FLAGS.annotations_file))
  else:
    stamp = vocabulary_stamp.first_known(
      vocabulary_stamp.of_shards(files or [])
    )
  split = tokenizer.for_scores(stamp) or caption_scores.tokenize
  for line in caption_scores.shortcomings():
    print(line, file=sys.stderr)
  references = training = None
  if FLAGS.annotations_file:
    references = caption_files.read_references(
      FLAGS.annotations_file, '--annotations_file'
    )
  if FLAGS.train_file_pattern:
    training = set(
      split(shards.distinct_captions(_files('train_file_pattern')))
    )
  runs, measured, results = {}, {}, {}
  if FLAGS.checkpoint_path:
    name = '+'.join(map(os.path.basename, prefixes))
    runs[name], measured[name], results[name] = score_checkpoint(
      prefixes, files, references, training, split
    )
    if FLAGS.results_output:
      files_lib.write_json(
        FLAGS.results_output,
        [
          {'image_id': image_id, 'caption': caption}
          for image_id, caption in results[name].items()
        ],
      )
  paths = dict.fromkeys(
    files_lib.split_names(FLAGS.results_file), '--results_file'
  )
  if FLAGS.compare_with:
    paths[FLAGS.compare_with] = '--compare_with'
  if references is None and paths and _has_references():
    references = {
      image_id: captions
      for image_id, (captions, _) in shards.captions_by_image(files).items()
    }
  stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
  names = [
    stem if stems.count(stem) == 1 and stem not in runs else path
    for stem, path in zip(stems, paths)
  ]
  for name, (path, flag) in zip(names, paths.items()):
    results[name] = caption_files.read_results(path, flag)
    if references is not None:
      _check_all_are_there(flag, path, results[name], references)
  if FLAGS.server_zip:
    write_server_zip(next(iter(results.values())))
    if not runs and references is None:
      return
  for name in names:
    runs[name], measured[name] = summary.measure(
      references,
      {i: [text] for i, text in results[name].items()},
      training,
      split=split,
    )
  print(summary.table(runs))
  if FLAGS.output_json:
    files_lib.write_json(
      FLAGS.output_json, runs if len(runs) > 1 else next(iter(runs.values()))
    )
  if FLAGS.image_scores_output:
    write_image_scores(measured, results)
  comparisons = {}
  if FLAGS.compare_with:
    comparisons = compare(references, measured, results, split)
  report(runs, measured, comparisons, stamp)


def compare(references, measured, results, split):
  """Compares each run with the last, that of --compare_with.

  Args:
    references: dict, image id -> captions.
    measured: dict, name of a run -> `caption_scores.Measured`.
    results: dict, name of a run -> dict, image id -> caption.
    split: what tokenizes captions.

  Returns:
    dict, name of a run -> what `resampling.compare` returns.

  Raises:
    ValueError: a run has captions of other images.
  """
  *names, baseline = measured
  comparisons = {}
  for name in names:
    try:
      comparisons[name], images = summary.compare(
        references,
        (results[name], results[baseline]),
        (measured[name], measured[baseline]),
        split,
        FLAGS.resamples,
        FLAGS.resampling_seed,
      )
    except ValueError as error:
      raise ValueError(
        f'--compare_with={FLAGS.compare_with} and {name}: '
        f'{error}; give captions of the same images'
      ) from error
    logging.info('%s and %s compared on %d images', name, baseline, images)
  return comparisons


def report(runs, measured, comparisons, stamp):
  """Prints and writes how sure the scores are, and what they depend on.

  Args:
    runs: dict, name of a run -> dict, name of the score -> number.
    measured: dict, name of a run -> `caption_scores.Measured`.
    comparisons: dict, name of a run -> what `resampling.compare` returns.
    stamp: the `vocabulary_stamp.Stamp` of the data, None if not known.
  """
  intervals = {}
  if FLAGS.resamples:
    intervals = {
      name: resampling.intervals(m, FLAGS.resamples, FLAGS.resampling_seed)
      for name, m in measured.items()
    }
    print(
      f'\n{resampling.CONFIDENCE:.0%} intervals '
      f'({FLAGS.resamples} resamples of the images)'
    )
    print(
      summary.table(
        {
          name: {
            metric: f'{low:.4f}-{high:.4f}'
            for metric, (low, high) in of_run.items()
          }
          for name, of_run in intervals.items()
        }
      )
    )
  for name, differences in comparisons.items():
    print(f'\n{name} less {os.path.basename(FLAGS.compare_with)}')
    print(summary.comparison_table(differences))
  signatures = {}
  for name, m in measured.items():
    signatures[name] = caption_scores.signature(
      m,
      *(
        []
        if tokenizer.for_scores(stamp) is None
        else [tokenizer.version(stamp.tokenizer).replace(' ', '-')]
      ),
    )
    if FLAGS.resamples:
      signatures[name] += (
        f'|resamples:{FLAGS.resamples}|seed:{FLAGS.resampling_seed}'
      )
  print()
  for name, signature in signatures.items():
    print(f'signature of {name}: {signature}')
  if FLAGS.report_json:
    files_lib.write_json(
      FLAGS.report_json,
      {
        'runs': {
          name: {
            'scores': runs[name],
            'intervals': intervals.get(name, {}),
            'signature': signatures[name],
          }
          for name in runs
        },
        'compared_with': FLAGS.compare_with or None,
        'differences': {
          name: {
            metric: difference._asdict()
            for metric, difference in differences.items()
          }
          for name, differences in comparisons.items()
        },
      },
    )


def write_image_scores(measured, results):
  """Writes --image_scores_output, a row for each image of each run.

  Args:
    measured: dict, name of a run -> `caption_scores.Measured`.
    results: dict, name of a run -> dict, image id -> caption.
  """
  rows = [
    row
    for name, m in measured.items()
    for row in summary.image_rows(name, m, results[name])
  ]
  path = FLAGS.image_scores_output
  if not path.endswith('.csv'):
    files_lib.write_json(path, rows)
    return
  with files_lib.replacing(path) as temporary:
    with open(temporary, 'w', encoding='utf-8', newline='') as f:
      writer = csv.DictWriter(
        f, list(dict.fromkeys(key for row in rows for key in row))
      )
      writer.writeheader()
      writer.writerows(rows)


def write_server_zip(val2014):
  """Writes --server_zip with these captions, dict image id -> caption."""
  lines = coco_server.write(
    FLAGS.server_zip,
    FLAGS.server_name,
    {
      'val2014': val2014,
      'test2014': caption_files.read_results(
        FLAGS.test2014_results, '--test2014_results'
      ),
    },
  )
  for line in lines:
    logging.warning('--server_zip=%s: %s', FLAGS.server_zip, line)


if __name__ == '__main__':
  program.run(main, define_flags)
