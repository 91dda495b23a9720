# SPDX-License-Identifier: Apache-2.0
"""Tests of score."""

import csv
import dataclasses
import json
import math
import os
import shutil
import sys
import zipfile

import numpy as np
import pytest

from im2txt import score
from im2txt import testing
from im2txt.data import shards
from im2txt.metrics import caption_scores
from im2txt.text import vocabulary
from im2txt.text import vocabulary_stamp

_WORDS = ['<S>', '</S>', 'a', 'man', 'dog', 'runs', '<UNK>']


@pytest.fixture(name='run')
def fixture_run(capsys, monkeypatch):
  """Runs the program; returns the lines of its first table."""
  # METEOR starts for ten seconds; caption_scores_test tests it.
  monkeypatch.setattr(
    caption_scores,
    'unavailable',
    lambda: {'meteor': 'left out', 'spice': 'left out'},
  )

  def run(**arguments):
    with testing.flags_of(score, *(f'--{k}={v}' for k, v in arguments.items())):
      capsys.readouterr()
      score.main([])
    return capsys.readouterr().out.split('\n\n')[0].splitlines()

  return run


def _json(path, content):
  path.write_text(json.dumps(content), encoding='utf-8')
  return str(path)


@pytest.fixture(name='annotations')
def fixture_annotations(tmp_path):
  return _json(
    tmp_path / 'annotations.json',
    {
      'images': [{'id': i, 'file_name': f'{i}.jpg'} for i in (1, 2, 3, 4)],
      'annotations': [
        {'image_id': 1, 'caption': 'A dog runs on green grass.'},
        {'image_id': 1, 'caption': 'The dog is running.'},
        {'image_id': 2, 'caption': 'Two men sit on a bench.'},
        {'image_id': 3, 'caption': 'A café.'},
      ],
    },
  )


def test_results_side_by_side(run, annotations, tmp_path):
  good = _json(
    tmp_path / 'good.json',
    [
      {'image_id': 1, 'caption': 'a dog runs on green grass'},
      {'image_id': 2, 'caption': 'two men sit on a bench'},
    ],
  )
  bad = _json(
    tmp_path / 'bad.json',
    [
      {'image_id': 1, 'caption': 'x y'},
      {'image_id': 2, 'caption': 'x y'},
      {'image_id': 3, 'caption': 'x y z'},
    ],
  )
  output = tmp_path / 'scores.json'
  lines = run(
    annotations_file=annotations,
    results_file=f'{good},{bad}',
    output_json=output,
    allow_missing_results=True,
  )
  scores = json.loads(output.read_text())
  assert list(scores) == ['good', 'bad']
  assert scores['good']['images'] == 2
  assert scores['good']['bleu_4'] == pytest.approx(1)
  # Image 1 has another caption, without a word in common but "dog".
  assert 6 < scores['good']['cider'] < 9
  assert scores['bad']['bleu_1'] < 1e-6
  assert scores['bad']['distinct_captions'] == 2
  assert scores['bad']['vocabulary_used'] == 3
  assert scores['bad']['mean_length'] == pytest.approx(7 / 3)
  assert lines[0].split() == ['good', 'bad']
  assert lines[1].split() == ['images', '2', '3']
  assert 'bleu_4' in lines[5] and lines[5].split()[1:] == ['1.0000', '0.0000']
  assert len({len(line) for line in lines}) == 1


def test_one_run_is_the_top_level(run, annotations, tmp_path):
  results = _json(tmp_path / 'a.json', [{'image_id': 3, 'caption': 'a café'}])
  output = tmp_path / 'scores.json'
  run(
    annotations_file=annotations,
    results_file=results,
    output_json=output,
    allow_missing_results=True,
  )
  assert json.loads(output.read_text())['bleu_2'] == pytest.approx(1)
  assert sorted(os.listdir(tmp_path)) == [
    'a.json',
    'annotations.json',
    'scores.json',
  ]


@pytest.mark.parametrize(
  'results, part',
  [
    ('[{"image_id": 1', 'results.json is not'),
    ('{"image_id": 1}', "no 'caption'"),
    ('{"scores": 1}', 'results.json is not .*, whole'),
    ('[{"image_id": 1}]', "entry 1 of .*results.json .*no 'caption'"),
    ('[{"image_id": 1, "caption": null}]', "no 'caption'"),
    ('[{"image_id": 1, "caption": 3}]', 'caption 3, not a text'),
    ('[{"image_id": 1, "caption": "a"}, 2]', 'entry 2 .*not a JSON object'),
    ('{"image_id": 1, "caption": "a"}\n{"image_', 'entry 2 '),
    ('[{"image_id": "1.jpg", "caption": "a"}]', "image id '1.jpg', not a num"),
    ('[{"image_id": NaN, "caption": "a"}]', 'image id nan, not a number'),
    ('[{"image_id": true, "caption": "a"}]', 'image id True, not a number'),
    ('[{"image_id": [1], "caption": "a"}]', r'image id \[1\], not a number'),
    ('[]', 'has no caption'),
    (
      '[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
      'more than one caption of image 1',
    ),
    ('[{"image_id": 9, "caption": "a"}]', '1 images have no .*image_id 9'),
    ('[{"image_id": 4, "caption": "a"}]', 'image_id 4'),
  ],
)
def test_unusable_results_are_refused(
  run, annotations, tmp_path, results, part
):
  path = tmp_path / 'results.json'
  path.write_text(results)
  with pytest.raises(ValueError, match=part) as error:
    run(annotations_file=annotations, results_file=path)
  assert '\n' not in str(error.value)


def test_missing_results_are_refused_unless_allowed(run, annotations, tmp_path):
  results = _json(
    tmp_path / 'r.json', [{'image_id': 2, 'caption': 'two men sit on a bench'}]
  )
  with pytest.raises(
    ValueError,
    match='r.json has captions of 1 of the 3 images, none of '
    'image_id 1, 3: caption all, or give --allow_missing_results',
  ):
    run(annotations_file=annotations, results_file=results)
  assert run(
    annotations_file=annotations,
    results_file=results,
    allow_missing_results=True,
  )[1].split() == ['images', '1']


@pytest.mark.parametrize(
  'references',
  [
    '{"images": [{"id": 1}, {"id": 2}, {"id": 3}], "annotations": [%s, %s]}',
    '{"annotations": [%s, %s]}',
    '[%s, %s]',
    '%s\n%s\n',
    '{"images": [{"id": "1"}, {"id": "2"}], "annotations": [%s, %s]}',
    '{"images": [{"filename": "1.jpg", "cocoid": 1, "split": "val", '
    '"sentences": [{"raw": "A dog runs here."}]}, {"filename": "2.jpg", '
    '"cocoid": 2, "split": "val", "sentences": [{"raw": "Two men."}]}]}',
    'image_id,file,caption\n1,1.jpg,A dog runs here.\n2,2.jpg,Two men.\n',
  ],
)
@pytest.mark.parametrize('results', ['[%s, %s]', '%s\n%s\n'])
def test_forms_of_references_and_results(run, tmp_path, references, results):
  parts = (
    '{"image_id": 1, "caption": "A dog runs here."}',
    '{"image_id": "2", "caption": "Two men."}',
  )
  for name, text in (('references', references), ('results', results)):
    (tmp_path / name).write_text(
      '\ufeff' + (text % parts if '%' in text else text), encoding='utf-8'
    )
  lines = run(
    annotations_file=tmp_path / 'references', results_file=tmp_path / 'results'
  )
  assert lines[1].split() == ['images', '2']
  assert lines[2].split() == ['bleu_1', '1.0000']


@pytest.mark.parametrize(
  'references, part',
  [
    ('file,caption\na.jpg,x\n', 'has no image ids'),
    ('[]', 'has no captions'),
    ('{"annotations": []}', 'no list "annotations"'),
    (
      '{"images": [{"id": 1}], "annotations": [{"image_id": 2, "caption": '
      '"a"}]}',
      'images that it does not list: 2',
    ),
    (
      '{"images": [{"id": 1}, {"id": "1"}], "annotations": [{"image_id": 1, '
      '"caption": "a"}]}',
      'more than one image with the id 1',
    ),
    (
      '{"images": 3, "annotations": [{"image_id": 2, "caption": "a"}]}',
      'TypeError',
    ),
  ],
)
def test_unusable_references_are_refused(run, tmp_path, references, part):
  path = tmp_path / 'references.json'
  path.write_text(references)
  results = _json(tmp_path / 'r.json', [{'image_id': 1, 'caption': 'a'}])
  with pytest.raises(ValueError, match=part) as error:
    run(annotations_file=path, results_file=results)
  assert '\n' not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
  'arguments, part',
  [
    ({}, 'either --results_file or --checkpoint_path'),
    ({'results_file': 'a', 'checkpoint_path': 'b'}, 'either'),
    ({'results_file': 'a'}, '--annotations_file'),
    ({'results_file': 'a', 'compare_with': 'b'}, '--annotations_file'),
    (
      {'results_file': 'a,b', 'annotations_file': 'c', 'compare_with': 'b'},
      '--compare_with=b is one of --results_file',
    ),
    (
      {
        'results_file': 'a',
        'annotations_file': 'b',
        'compare_with': 'c',
        'resamples': 0,
      },
      '--compare_with needs --resamples above 0',
    ),
    ({'results_file': 'a', 'server_zip': 'b'}, '--test2014_results'),
    (
      {'results_file': 'a,b', 'server_zip': 'c.zip', 'test2014_results': 'd'},
      '--results_file=a,b must be one file',
    ),
    (
      {
        'results_file': 'a',
        'server_zip': 'c.zip',
        'test2014_results': 'd',
        'server_name': 'x/y',
      },
      '--server_name=x/y',
    ),
    (
      {'results_file': 'a', 'annotations_file': 'b', 'test2014_results': 'c'},
      '--test2014_results needs --server_zip',
    ),
    (
      {'results_file': 'a', 'annotations_file': 'b', 'ranking': True},
      'need --checkpoint_path',
    ),
    ({'results_file': 'a', 'share': '0/2', 'annotations_file': 'b'}, 'needs'),
    (
      {
        'checkpoint_path': 'a',
        'vocab_file': 'b',
        'input_file_pattern': 'c',
        'results_output': 'x.json',
        'share': '2/2',
      },
      '--share=2/2 must be INDEX/COUNT',
    ),
    (
      {
        'checkpoint_path': 'a',
        'vocab_file': 'b',
        'input_file_pattern': 'c',
        'join_results': True,
      },
      '--join_results needs --results_file',
    ),
    (
      {'results_file': 'a', 'annotations_file': 'b', 'beam_size': 0},
      '--beam_size=0',
    ),
    (
      {'results_file': 'a', 'annotations_file': 'b', 'top_k': 5},
      '--top_k=5 needs sample',
    ),
    (
      {
        'results_file': 'a',
        'annotations_file': 'b',
        'output_json': 'no/x.json',
      },
      '--output_json=no/x.json: there is no directory no: make',
    ),
    (
      {
        'checkpoint_path': 'a',
        'vocab_file': 'b',
        'input_file_pattern': 'c',
        'results_output': 'no/x.json',
      },
      '--results_output=no/x.json',
    ),
  ],
)
def test_flags_that_do_not_go_together(run, arguments, part):
  with pytest.raises(ValueError, match=part):
    run(**arguments)


@pytest.fixture(name='two_runs')
def fixture_two_runs(tmp_path):
  """Annotations of 40 images, results that are right, and others half so."""
  captions = [
    f'a {color} {animal} runs on the {place}'
    for color in ('red', 'blue')
    for animal in ('dog', 'cat')
    for place in 'abcdefghij'
  ]
  return {
    'annotations_file': _json(
      tmp_path / 'all.json',
      {
        'images': [{'id': i} for i in range(40)],
        'annotations': [
          {'image_id': i, 'caption': caption}
          for i, caption in enumerate(captions)
        ],
      },
    ),
    'results_file': _json(
      tmp_path / 'right.json',
      [
        {'image_id': i, 'caption': caption}
        for i, caption in enumerate(captions)
      ],
    ),
    'compare_with': _json(
      tmp_path / 'half.json',
      [
        {'image_id': i, 'caption': caption if i % 2 else 'a red dog runs'}
        for i, caption in enumerate(captions)
      ],
    ),
  }


def _report(path):
  return json.loads(path.read_text())


def test_two_runs_are_compared(run, two_runs, tmp_path):
  path = tmp_path / 'report.json'
  lines = run(report_json=path, **two_runs)
  assert lines[0].split() == ['right', 'half']
  report = _report(path)
  right, half = report['runs']['right'], report['runs']['half']
  assert right['scores']['bleu_4'] == pytest.approx(1)
  assert right['intervals']['bleu_4'] == pytest.approx([1, 1])
  low, high = half['intervals']['rouge_l']
  assert low < half['scores']['rouge_l'] < high
  difference = report['differences']['right']['rouge_l']
  assert difference['value'] == pytest.approx(1 - half['scores']['rouge_l'])
  assert difference['low'] < difference['value'] < difference['high']
  assert difference['p_value'] == pytest.approx(1 / 1001)
  assert report['compared_with'] == two_runs['compare_with']
  assert half['signature'] == (
    'images:40|references:40|tok:ptb-1|java:no|bleu:1|rouge:L-1|cider:D-1|'
    'resamples:1000|seed:12345'
  )
  again = tmp_path / 'again.json'
  run(report_json=again, **two_runs)
  assert _report(again) == report
  run(report_json=again, resampling_seed=1, **two_runs)
  assert _report(again) != report


def test_all_that_is_printed(run, two_runs, capsys):
  del run  # Makes METEOR be left out.
  with testing.flags_of(
    score, *(f'--{k}={v}' for k, v in two_runs.items()), '--resamples=100'
  ):
    score.main([])
  table, intervals, comparison, signatures = (
    part.splitlines() for part in capsys.readouterr().out.split('\n\n')
  )
  assert table[0].split() == ['right', 'half']
  assert intervals[0] == '95% intervals (100 resamples of the images)'
  assert intervals[2].split()[:2] == ['bleu_1', '1.0000-1.0000']
  assert comparison[0] == 'right less half.json'
  assert comparison[1].split() == ['difference', 'interval', 'p']
  assert comparison[-1].startswith('cider') and comparison[-1].endswith(
    '0.0099'
  )
  assert [line.split(':')[0] for line in signatures] == [
    'signature of right',
    'signature of half',
  ]


def test_what_one_run_lacks_is_left_out_of_the_comparison(
  run, two_runs, tmp_path
):
  results = json.loads((tmp_path / 'half.json').read_text())
  _json(tmp_path / 'half.json', results[:30])
  path = tmp_path / 'report.json'
  with pytest.raises(ValueError, match='--compare_with .* 30 of the 40 images'):
    run(**two_runs)
  run(report_json=path, allow_missing_results=True, **two_runs)
  report = _report(path)
  assert report['runs']['right']['scores']['images'] == 40
  assert report['runs']['half']['scores']['images'] == 30
  whole = report['runs']['right']['scores']['rouge_l']
  assert report['differences']['right']['rouge_l']['value'] == pytest.approx(
    whole - report['runs']['half']['scores']['rouge_l']
  )
  _json(tmp_path / 'half.json', results[:10])
  _json(tmp_path / 'right.json', results[20:])
  with pytest.raises(ValueError, match='right: no image has captions of both'):
    run(allow_missing_results=True, **two_runs)


def test_scores_of_each_image(run, two_runs, tmp_path):
  run(
    image_scores_output=tmp_path / 'images.json',
    report_json=tmp_path / 'report.json',
    **two_runs,
  )
  rows = _report(tmp_path / 'images.json')
  assert [(row['run'], row['image_id']) for row in rows] == [
    (name, i) for name in ('right', 'half') for i in range(40)
  ]
  assert list(rows[0]) == [
    'run',
    'image_id',
    'caption',
    'bleu_1',
    'bleu_2',
    'bleu_3',
    'bleu_4',
    'rouge_l',
    'cider',
  ]
  assert rows[0]['caption'] == 'a red dog runs on the a'
  means = _report(tmp_path / 'report.json')['runs']['half']['scores']
  for name in ('rouge_l', 'cider'):
    assert np.mean([row[name] for row in rows[40:]]) == pytest.approx(
      means[name]
    )
  run(image_scores_output=tmp_path / 'images.csv', **two_runs)
  with open(tmp_path / 'images.csv', encoding='utf-8', newline='') as f:
    for expected, row in zip(rows, csv.DictReader(f), strict=True):
      assert row == {name: str(value) for name, value in expected.items()}


def test_the_order_of_results_does_not_matter(run, two_runs, tmp_path):
  reports = []
  for reverse in (False, True):
    _json(
      tmp_path / 'right.json',
      sorted(
        json.loads((tmp_path / 'right.json').read_text()),
        key=lambda row: row['image_id'],
        reverse=reverse,
      ),
    )
    path = tmp_path / 'report.json'
    run(report_json=path, **two_runs)
    reports.append(_report(path))
  assert reports[0] == reports[1]


def test_a_checkpoint_is_compared(run, model_dir, tmp_path):
  other = _json(
    tmp_path / 'other.json',
    [{'image_id': i, 'caption': 'a dog'} for i in (10, 20, 30)],
  )
  path = tmp_path / 'report.json'
  lines = run(
    checkpoint_path=model_dir,
    vocab_file=model_dir / 'words.txt',
    input_file_pattern=model_dir / 'val-*',
    compare_with=other,
    report_json=path,
    allow_missing_results=True,
  )
  assert lines[0].split() == ['model.ckpt-7', 'other']
  report = _report(path)
  assert report['differences']['model.ckpt-7']['bleu_1'][
    'value'
  ] == pytest.approx(
    report['runs']['model.ckpt-7']['scores']['bleu_1']
    - report['runs']['other']['scores']['bleu_1']
  )


def test_without_resamples(run, two_runs, tmp_path):
  del two_runs['compare_with']
  run(report_json=tmp_path / 'r.json', resamples=0, **two_runs)
  report = _report(tmp_path / 'r.json')
  assert report['runs']['right']['intervals'] == {}
  assert report['runs']['right']['signature'].endswith('|cider:D-1')


def test_server_zip(run, two_runs, tmp_path, caplog):
  test = _json(tmp_path / 'test.json', [{'image_id': 99, 'caption': 'a'}])
  # Without anything to score against, and with.
  for number, more in enumerate(
    ({}, {'annotations_file': two_runs['annotations_file']})
  ):
    path = tmp_path / f'{number}.zip'
    caplog.clear()
    lines = run(
      results_file=two_runs['results_file'],
      server_zip=path,
      test2014_results=test,
      server_name='net',
      **more,
    )
    assert bool(lines) == bool(more)
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
      assert names == [
        'captions_val2014_net_results.json',
        'captions_test2014_net_results.json',
      ]
      assert len(json.loads(archive.read(names[0]))) == 40
      assert json.loads(archive.read(names[1])) == [
        {'image_id': 99, 'caption': 'a'}
      ]
    assert any(
      '1 images of test2014; the server wants all 40775' in message
      for message in caplog.messages
    )


@pytest.fixture(scope='module', name='model_dir')
def fixture_model_dir(tmp_path_factory):
  """A model of random weights, its vocabulary, and two shards."""
  from im2txt import checkpoints
  from im2txt import configuration
  from im2txt import show_and_tell_model

  directory = tmp_path_factory.mktemp('model')
  (directory / 'words.txt').write_text(
    '\n'.join(f'{word} 5' for word in _WORDS[:-1])
  )
  model = show_and_tell_model.ShowAndTellModel(
    configuration.ModelConfig(
      vocab_size=len(_WORDS), embedding_size=8, num_lstm_units=6
    )
  )
  model.logits_biases.assign(
    np.log([1e-9, 1e-6, 0.4, 0.25, 0.2, 0.1, 0.05]).astype(np.float32)
  )
  checkpoints.write(str(directory / 'model.ckpt-7'), model.named_variables)

  def record(image_id, data, caption):
    tokens = ['<S>', *caption.split(), '</S>']
    return shards.serialize(
      image_id,
      data,
      tokens,
      [_WORDS.index(t) if t in _WORDS else 6 for t in tokens],
    )

  records = [
    record(image_id, testing.jpeg(image_id), caption)
    for image_id, caption in (
      (30, 'a man'),
      (10, 'a dog runs'),
      (20, 'a cat runs'),
    )
  ]
  records += [record(40, b'\xff\xd8 damaged', 'a man')]
  records += [record(10, testing.jpeg(10), 'a man runs')]
  for shard in range(2):
    with shards.Writer(directory / f'val-{shard}') as writer:
      for item in records[shard::2]:
        writer.write(item)
  return directory


def test_checkpoint(run, model_dir, tmp_path):
  output, results = tmp_path / 'scores.json', tmp_path / 'results.json'
  lines = run(
    checkpoint_path=model_dir,
    vocab_file=model_dir / 'words.txt',
    input_file_pattern=model_dir / 'val-*',
    ranking=True,
    train_file_pattern=model_dir / 'val-0',
    output_json=output,
    ranking_captions_per_image=5,
    results_output=results,
    inference_batch_size=2,
  )
  assert lines[0].split() == ['model.ckpt-7']
  captions = json.loads(results.read_text())
  assert [entry['image_id'] for entry in captions] == [10, 20, 30]
  assert all(entry.keys() == {'image_id', 'caption'} for entry in captions)
  scores = json.loads(output.read_text())
  assert scores['images'] == 3
  # By the biases alone it never ends: "a a a ...", of which one is right.
  assert scores['vocabulary_used'] == scores['distinct_captions'] == 1
  assert scores['mean_length'] > 10
  assert scores['bleu_1'] == pytest.approx(1 / scores['mean_length'])
  assert scores['best_in_training'] == 0
  assert scores['n_best_in_training'] == 0
  # Of 4 captions, 15 words: those of the biases, about.
  counts = {1e-6: 4, 0.4: 4, 0.25: 2, 0.2: 1, 0.1: 3, 0.05: 1}
  expected = math.exp(-sum(n * math.log(p) for p, n in counts.items()) / 15)
  assert scores['perplexity'] == pytest.approx(expected, rel=0.05)
  assert scores['ranking_images'] == 3
  assert scores['ranking_captions'] == 4
  assert scores['image_to_caption_recall_5'] == 1
  assert scores['caption_to_image_recall_5'] == 1

  # The captions written score the same.
  again = tmp_path / 'again.json'
  run(
    results_file=results,
    allow_missing_results=True,
    input_file_pattern=model_dir / 'val-*',
    output_json=again,
  )
  for name, value in json.loads(again.read_text()).items():
    assert scores[name] == value


def test_shares_are_captioned_apart_and_scored_together(
  run, model_dir, tmp_path
):
  def caption(name, **arguments):
    run(
      checkpoint_path=model_dir,
      vocab_file=model_dir / 'words.txt',
      input_file_pattern=model_dir / 'val-*',
      results_output=tmp_path / name,
      **arguments,
    )
    return json.loads((tmp_path / name).read_text())

  whole = caption('whole.json', output_json=tmp_path / 'whole_scores.json')
  # The fourth image is damaged, and the fifth share empty.
  shares = [caption(f'{i}.json', share=f'{i}/5') for i in range(5)]
  assert max(map(len, shares)) == 1
  joined = sorted(sum(shares, []), key=lambda entry: entry['image_id'])
  assert joined == whole

  def score(**arguments):
    return run(
      input_file_pattern=model_dir / 'val-*',
      allow_missing_results=True,
      output_json=tmp_path / 'scores.json',
      **arguments,
    )

  files = ','.join(f'{tmp_path}/{i}.json' for i in range(5) if shares[i])
  lines = score(results_file=files, join_results=True)
  assert '+' in lines[0]
  expected = json.loads((tmp_path / 'whole_scores.json').read_text())
  for name, value in json.loads((tmp_path / 'scores.json').read_text()).items():
    assert expected[name] == value
  lines = score(
    results_file=files,
    join_results=True,
    compare_with=tmp_path / 'whole.json',
  )
  assert lines[0].split()[-1] == 'whole'
  with pytest.raises(ValueError, match='which another one has too'):
    score(results_file=f'{files},{tmp_path}/whole.json', join_results=True)


@pytest.mark.parametrize('share', ['', '0/2'])
def test_the_precision_is_that_asked_for(run, model_dir, tmp_path, share):
  # The encoder was not calibrated.
  with pytest.raises(ValueError, match='calibrate_encoder|openvino'):
    run(
      checkpoint_path=model_dir,
      vocab_file=model_dir / 'words.txt',
      input_file_pattern=model_dir / 'val-*',
      results_output=tmp_path / 'results.json',
      precision='int8',
      share=share,
    )


def test_copies_of_training_captions(run, model_dir, tmp_path):
  results = _json(
    tmp_path / 'a.json',
    [{'image_id': 30, 'caption': 'A man.'}, {'image_id': 10, 'caption': 'a'}],
  )
  output = tmp_path / 'scores.json'
  run(
    results_file=results,
    allow_missing_results=True,
    input_file_pattern=model_dir / 'val-*',
    train_file_pattern=model_dir / 'val-0',
    output_json=output,
  )
  assert json.loads(output.read_text())['best_in_training'] == 0.5


def test_first_images_only(run, model_dir, tmp_path):
  results = tmp_path / 'results.json'
  run(
    checkpoint_path=model_dir,
    vocab_file=model_dir / 'words.txt',
    input_file_pattern=model_dir / 'val-*',
    max_images=2,
    results_output=results,
  )
  assert [entry['image_id'] for entry in json.loads(results.read_text())] == [
    20,
    30,
  ]


def test_first_images_only_are_compared(run, model_dir, tmp_path):
  other = _json(
    tmp_path / 'other.json',
    [{'image_id': i, 'caption': 'a dog'} for i in (10, 20, 30)],
  )
  lines = run(
    checkpoint_path=model_dir,
    vocab_file=model_dir / 'words.txt',
    input_file_pattern=model_dir / 'val-*',
    max_images=2,
    compare_with=other,
  )
  assert lines[1].split() == ['images', '2', '2']


def test_an_ensemble(run, model_dir, tmp_path):
  found = {}
  for name, path in (
    ('alone', model_dir),
    ('twice', f'{model_dir},{model_dir}'),
  ):
    output = tmp_path / f'{name}.json'
    lines = run(
      checkpoint_path=path,
      vocab_file=model_dir / 'words.txt',
      input_file_pattern=model_dir / 'val-*',
      output_json=output,
      ranking=True,
      beam_size=4,
    )
    found[name] = lines[0].split(), json.loads(output.read_text())
  assert found['alone'][0] == ['model.ckpt-7']
  assert found['twice'][0] == ['model.ckpt-7+model.ckpt-7']
  assert found['twice'][1] == pytest.approx(found['alone'][1], rel=1e-5)
  assert {'oracle_cider', 'mbleu_4', 'self_cider'} <= found['alone'][1].keys()


def test_shards_of_another_vocabulary_are_refused(run, model_dir, tmp_path):
  words = tmp_path / 'words.txt'
  words.write_text('\n'.join(f'{word} 5' for word in reversed(_WORDS[:-1])))
  with pytest.raises(ValueError, match='not those of the vocabulary'):
    run(
      checkpoint_path=model_dir,
      vocab_file=words,
      input_file_pattern=model_dir / 'val-*',
    )


def test_stamps_of_two_vocabularies_are_refused(run, model_dir, tmp_path):
  shutil.copy(model_dir / 'val-0', tmp_path)
  vocabulary_stamp.save(
    tmp_path, vocabulary_stamp.Stamp('34cd', 9, '/other.txt')
  )
  words = model_dir / 'words.txt'
  with pytest.raises(ValueError) as error:
    run(
      checkpoint_path=model_dir,
      vocab_file=words,
      input_file_pattern=tmp_path / 'val-0',
    )
  for part in (
    f'the vocabulary file {words} (fingerprint ',
    f'the shards in {tmp_path} (fingerprint 34cd, 9 words of /other.txt)',
  ):
    assert part in str(error.value)


def test_captions_without_spaces(run, tmp_path):
  annotations = _json(
    tmp_path / 'annotations.json',
    {
      'images': [{'id': 1, 'file_name': '1.jpg'}],
      'annotations': [{'image_id': 1, 'caption': '一只狗在草地上。'}],
    },
  )
  results = _json(
    tmp_path / 'a.json', [{'image_id': 1, 'caption': '一只狗在跑'}]
  )
  output = tmp_path / 'scores.json'

  def scores():
    run(annotations_file=annotations, results_file=results, output_json=output)
    return json.loads(output.read_text())

  assert scores()['bleu_1'] < 0.01  # A word, and a wrong one.
  vocabulary_stamp.save(
    tmp_path, vocabulary_stamp.Stamp('12ab', 9, '/words.txt', 'characters')
  )
  found = scores()
  # Four of five characters, and seven would be as long as the human's.
  assert found['bleu_1'] == pytest.approx(4 / 5 * math.exp(1 - 7 / 5))
  assert found['mean_length'] == 5


def test_a_checkpoint_tells_the_tokenizer(run, model_dir, tmp_path):
  for path in model_dir.iterdir():
    shutil.copy(path, tmp_path)
  words = str(model_dir / 'words.txt')
  vocab = vocabulary_stamp.of_vocabulary(vocabulary.Vocabulary(words))
  vocabulary_stamp.save(
    tmp_path, dataclasses.replace(vocab.stamp, tokenizer='characters')
  )
  output, results = tmp_path / 'scores.json', tmp_path / 'results.json'
  run(
    checkpoint_path=tmp_path,
    vocab_file=words,
    output_json=output,
    input_file_pattern=tmp_path / 'val-*',
    results_output=results,
  )
  # As test_checkpoint has them with blanks between.
  assert all(
    set(entry['caption']) == {'a'} for entry in json.loads(results.read_text())
  )
  assert json.loads(output.read_text())['mean_length'] > 10


def test_program_ends_with_one_line_and_status_1(annotations):
  process = testing.run_program(
    'score',
    '--results_file=nowhere.json',
    f'--annotations_file={annotations}',
  )
  assert process.returncode == 1
  assert process.stdout == ''
  assert process.stderr.splitlines()[-1] == (
    'error: cannot read the captions file nowhere.json (No such file or '
    'directory): give --results_file the path of a captions file'
  )


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
