# SPDX-License-Identifier: Apache-2.0
r"""Scores captions against references: BLEU, METEOR, ROUGE-L, CIDEr, ...

Captions that some program wrote, in the JSON format of COCO's evaluation
server; several files make one table, side by side:

  score --annotations_file=captions_val2014.json --results_file=a.json,b.json

A checkpoint, which captions every image of some shards first (several,
separated by commas, are an ensemble):

  score --checkpoint_path=train_dir --vocab_file=word_counts.txt \
      --input_file_pattern='val-?????-of-00004' --results_output=a.json

The references are those of --annotations_file, or else of the shards. A
table is printed; --output_json takes the same: {"bleu_1": 0.6, ...} of one
run, {"a": {"bleu_1": 0.6, ...}, "b": {...}} of several. Scores are between 0
and 1, but cider between 0 and 10. Below the table stand the interval of each
score and a line of what the scores depend on; docs/scores.md explains both.

Several processes or machines may share the images, each with another --share:

  score --checkpoint_path=... --share=0/4 --results_output=0.json
  score --results_file=0.json,1.json,2.json,3.json --join_results

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

import os
import sys

from absl import flags

from im2txt.evaluation import score_options
from im2txt.evaluation import score_report
from im2txt.evaluation import scoring
from im2txt.inference_utils import search_config
from im2txt.metrics import caption_scores
from im2txt.metrics import summary
from im2txt.runtime import files
from im2txt.runtime import flag_dataclasses
from im2txt.runtime import program

FLAGS = flags.FLAGS


def define_flags() -> None:
  flag_dataclasses.define_flags(score_options.ScoreOptions)
  search_config.define_flags()


def main(_: list[str]) -> None:
  options = flag_dataclasses.from_flags(FLAGS, score_options.ScoreOptions)
  options.check()
  search = search_config.from_flags(FLAGS)
  program.require_output_directories(
    FLAGS,
    'output_json',
    'results_output',
    'image_scores_output',
    'report_json',
    'server_zip',
  )
  sources = scoring.open_sources(options)
  for line in caption_scores.shortcomings():
    print(line, file=sys.stderr)
  if options.share:
    score_report.write_results(
      options.results_output, scoring.caption_share(options, search, sources)
    )
    return
  runs, references = {}, sources.references
  if options.checkpoint_path:
    name = '+'.join(map(os.path.basename, sources.prefixes))
    runs[name], references = scoring.score_checkpoint(options, search, sources)
    if options.results_output:
      score_report.write_results(options.results_output, runs[name].captions)
  elif references is None and sources.files:
    references = scoring.references_of_shards(sources.files)
  results = scoring.read_results(options, references, runs)
  if options.server_zip:
    val2014 = [*(run.captions for run in runs.values()), *results.values()][0]
    score_report.write_server_zip(options, val2014)
  if references is None:  # Only --server_zip works without.
    return
  for name, captions in results.items():
    runs[name] = scoring.score_captions(captions, references, sources)
  scores = {name: run.scores for name, run in runs.items()}
  print(summary.table(scores))
  if options.output_json:
    files.write_json(
      options.output_json,
      scores if len(scores) > 1 else next(iter(scores.values())),
    )
  if options.image_scores_output:
    score_report.write_image_scores(options.image_scores_output, runs)
  comparisons = {}
  if options.compare_with:
    comparisons = scoring.compare(options, runs, references, sources)
  report = score_report.Report(options, runs, comparisons, sources.stamp)
  print('\n' + report.text())
  if options.report_json:
    files.write_json(options.report_json, report.as_dict())


if __name__ == '__main__':
  program.run(main, define_flags)
