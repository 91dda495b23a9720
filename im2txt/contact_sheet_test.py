# SPDX-License-Identifier: Apache-2.0
"""Tests of contact_sheet."""

import contextlib
import json
import sys
import zipfile

import numpy as np
from PIL import Image
import pytest

from im2txt import testing

_RESULTS = [
  {'image_id': 1, 'caption': 'a red star .'},
  {'image_id': 2, 'caption': 'a dog costs $ 5'},
]


@pytest.fixture(name='files')
def fixture_files(tmp_path):
  for number in (1, 2):
    Image.new('L', (60, 40), 99).save(tmp_path / f'{number}.jpg')
  (tmp_path / 'annotations.json').write_text(
    json.dumps(
      {
        'images': [{'id': i, 'file_name': f'{i}.jpg'} for i in (1, 2)],
        'annotations': [
          {'image_id': 1, 'caption': 'One star.'},
          {'image_id': 1, 'caption': 'A red star.'},
          {'image_id': 2, 'caption': 'A cat.'},
        ],
      }
    )
  )
  (tmp_path / 'results.json').write_text(json.dumps(_RESULTS))
  return tmp_path


def run(files, *flags):
  return testing.run_program(
    'contact_sheet',
    f'--annotations_file={files}/annotations.json',
    f'--results_file={files}/results.json',
    f'--image_dir={files}',
    f'--output_file={files}/sheet.png',
    *flags,
  )


def test_draws_the_sheet_and_counts(files):
  result = run(files, '--columns=2')
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith('1 of 2 captions equal a reference')
  with Image.open(files / 'sheet.png') as sheet:
    assert sheet.format == 'PNG' and sheet.width > sheet.height > 100
    # Pictures are grey, the first caption green, the second black.
    colors = np.asarray(sheet.convert('RGB')).astype(int)
  green = (colors[..., 1] - colors[..., [0, 2]].max(axis=2)) > 60
  assert green[:, : green.shape[1] // 2].any()
  assert not green[:, green.shape[1] // 2 :].any()
  assert not (files / '.sheet.png.tmp').exists()


@pytest.mark.parametrize(
  'name, content, message',
  [
    (
      'results.json',
      '[{"image_id": 9, "caption": "a"}]',
      'must be of the images',
    ),
    ('results.json', '[]', 'has no caption'),
    ('results.json', '[', 'results_file'),
    ('annotations.json', '{}', '--annotations_file a COCO captions'),
    ('1.jpg', None, 'give --image_dir the directory'),
  ],
)
def test_refuses_in_one_line(files, name, content, message):
  (files / name).write_text(content or '')
  if content is None:
    (files / name).unlink()
  result = run(files)
  assert result.returncode == 1
  (line,) = [line for line in result.stderr.splitlines() if line]
  assert line.startswith('error: ') and message in line
  assert not (files / 'sheet.png').exists()


def test_a_picture_that_is_none_leaves_the_others(files):
  (files / '1.jpg').write_text('text')
  result = run(files)
  assert result.returncode == 0 and (files / 'sheet.png').exists()
  assert '1.jpg (not an image of a kind that is read' in result.stderr
  assert 'Traceback' not in result.stderr
  (files / 'sheet.png').unlink()
  (files / '2.jpg').write_text('text')
  result = run(files)
  assert result.returncode == 1 and not (files / 'sheet.png').exists()
  (line,) = [line for line in result.stderr.splitlines() if line]
  assert line.startswith('error: cannot decode the image ')


def test_pictures_in_an_archive(files):
  with zipfile.ZipFile(files / 'images.zip', 'w') as archive:
    for number in (1, 2):
      archive.write(files / f'{number}.jpg', f'images/{number}.jpg')
  assert run(files).returncode == 0
  expected = (files / 'sheet.png').read_bytes()
  for number in (1, 2):
    (files / f'{number}.jpg').unlink()
  result = run(files, f'--image_dir={files}/images.zip')
  assert result.returncode == 0, result.stderr
  assert (files / 'sheet.png').read_bytes() == expected


def run_of_captions(files, *flags):
  """Runs it in the directory `files`, so that names are as they are given."""
  with contextlib.chdir(files):
    return testing.run_program(
      'contact_sheet',
      '--captions_file=captions.jsonl',
      '--output_file=sheet.png',
      *flags,
    )


def test_draws_what_run_inference_printed(files):
  def write(*captions, before=()):
    (files / 'captions.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in before)
      + ''.join(
        json.dumps(
          {
            'image': f'{i}.jpg',
            'captions': [
              {'caption': caption, 'probability': 0.5, 'log_probability': -0.7}
              for caption in captions
            ],
          }
        )
        + '\n'
        for i in (1, 2)
      )
    )
    result = run_of_captions(files)
    assert result.returncode == 0, result.stderr
    assert result.stdout == '2 images with their captions: sheet.png\n'
    with Image.open(files / 'sheet.png') as sheet:
      return np.asarray(sheet.convert('RGB'))

  sheet = write('a red star .', 'a dog')
  # Below the images all is black or white: no caption is green or grey.
  text = sheet[-20:].astype(int)
  assert (text.min(axis=(0, 1)) < 99).all() and not np.ptp(text, axis=2).any()
  # The first caption alone stands there.
  np.testing.assert_array_equal(sheet, write('a red star .', 'a cat'))
  assert (sheet != write('a red dog .', 'a dog')).any()
  # A file that run_inference went on with has several lines of an image, and
  # lines of others.
  others = [
    {'image': '1.jpg', 'captions': [{'caption': 'before it was edited'}]},
    {'image': 'bad.jpg', 'captions': [], 'error': 'damaged'},
    {'image': 'clip.mp4', 'time': 1.5, 'captions': [{'caption': 'a frame'}]},
  ]
  np.testing.assert_array_equal(sheet, write('a red star .', before=others))


@pytest.mark.parametrize(
  'content, flags, message',
  [
    (
      '{"image": "3.jpg", "captions": [{"caption": "a"}]}',
      [],
      'cannot read the image 3.jpg',
    ),
    (
      '{"image": "1.jpg", "captions": []}',
      [],
      '--captions_file=captions.jsonl has no caption',
    ),
    ('[' * 100_000, [], '=json (RecursionError'),
    (
      'Captions for image 1.jpg:',
      [],
      'must be the output of run_inference --output_format=json',
    ),
    ('', [], '--captions_file=captions.jsonl has no caption'),
    ('{}', ['--captions_file=none'], 'cannot read --captions_file=none'),
    (
      '{}',
      ['--image_dir=.'],
      'cannot be used with --image_dir=.: leave one out',
    ),
  ],
)
def test_refuses_other_captions_in_one_line(files, content, flags, message):
  (files / 'captions.jsonl').write_text(content)
  result = run_of_captions(files, *flags)
  assert result.returncode == 1
  (line,) = [line for line in result.stderr.splitlines() if line]
  assert line.startswith('error: ') and message in line
  assert not (files / 'sheet.png').exists()


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
