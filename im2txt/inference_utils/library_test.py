# SPDX-License-Identifier: Apache-2.0
"""Tests of library, which programs of others import."""

import contextlib
import io
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import im2txt
from im2txt import testing
from im2txt.inference_utils import batches
from im2txt.inference_utils import captioner as captioner_lib
from im2txt.inference_utils import image_files
from im2txt.runtime import files

_ROOT = os.path.dirname(
  os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)


@pytest.fixture(scope='module', name='directory')
def fixture_directory(tmp_path_factory):
  """A directory with a model of random weights and four images."""
  path = tmp_path_factory.mktemp('model')
  testing.caption_model(path)
  for i in range(4):
    (path / f'{i}.jpg').write_bytes(testing.jpeg(i))
  (path / 'broken.jpg').write_bytes(testing.jpeg()[:100])
  return path


@pytest.fixture(scope='module', name='captioner')
def fixture_captioner(directory):
  return im2txt.Captioner.load(directory, beam_size=2, batch_size=2)


def _numbers(captions):
  return [caption.log_probability for caption in captions]


def _run(code):
  return subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([_ROOT, *sys.path])},
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


def test_importing_im2txt_does_not_import_tensorflow():
  result = _run(
    'import sys, im2txt\n'
    'dir(im2txt)\n'
    'assert {"Captioner", "ScoredCaption"} <= set(dir(im2txt))\n'
    'for name in ("tensorflow", "numpy", "PIL", "absl"):\n'
    '  assert name not in sys.modules, name\n'
    'from im2txt import Captioner\n'
    'assert "tensorflow" in sys.modules\n'
    'assert Captioner is im2txt.Captioner\n'
  )
  assert result.returncode == 0, result.stderr


def test_the_public_names_are_there_and_no_others():
  for name in im2txt.__all__:
    assert getattr(im2txt, name).__name__ == name
  with pytest.raises(AttributeError, match="'im2txt' has no attribute 'Captn'"):
    im2txt.Captn


def test_a_name_gives_the_captions_that_run_inference_gives(
  directory, captioner
):
  captions = captioner.caption(directory / '1.jpg')
  program = captioner_lib.Captioner(
    str(directory),
    str(directory / 'word_counts.txt'),
    im2txt.SearchConfig(beam_size=2),
  )
  ((_, expected),) = batches.caption_in_batches(
    program,
    image_files.read_images([f'{directory}/1.jpg'], program.decode, ahead=1),
    2,
  )
  assert captions == expected and len(captions) == 2
  assert captions[0].as_dict() == {
    'caption': captions[0].text,
    'probability': captions[0].probability,
    'log_probability': captions[0].log_probability,
  }


def test_one_image_of_every_kind(directory, captioner):
  path = directory / '2.jpg'
  data = path.read_bytes()
  expected = captioner.caption(str(path))
  for image in (path, data, bytearray(data), memoryview(data)):
    assert captioner.caption(image) == expected, type(image)
  with open(path, 'rb') as f:
    assert captioner.caption(f) == expected
  # PNG, as all decoders agree on that.
  out = io.BytesIO()
  image = Image.open(path)
  image.save(out, 'PNG')
  expected = captioner.caption(out.getvalue())
  array = np.asarray(image)
  opaque = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
  for same in (image, array, opaque, Image.open(out), Image.fromarray(opaque)):
    assert captioner.caption(same) == expected, same
  grey = np.asarray(image.convert('L'))
  expected = captioner.caption(np.dstack([grey] * 3))
  for same in (grey, grey[:, :, np.newaxis], image.convert('L')):
    assert captioner.caption(same) == expected


def test_several_images_whatever_holds_them(directory, captioner):
  paths = [directory / f'{i}.jpg' for i in range(3)]
  each = [captioner.caption(path) for path in paths]
  assert len({captions[0].log_probability for captions in each}) == 3
  for several in (paths, tuple(paths), iter(paths)):
    found = captioner.caption(several)
    assert [[c.text for c in captions] for captions in found] == [
      [c.text for c in captions] for captions in each
    ]
    for one, other in zip(found, each):
      np.testing.assert_allclose(_numbers(one), _numbers(other), atol=1e-5)
  batch = np.stack([np.asarray(Image.open(path)) for path in paths])
  assert [len(captions) for captions in captioner.caption(batch)] == [2] * 3
  assert captioner.caption([]) == []


def test_images_are_turned_as_their_exif_data_say(directory):
  exif = Image.Exif()
  exif[274] = 6
  out = io.BytesIO()
  image = Image.open(directory / '1.jpg')
  image.save(out, 'PNG', exif=exif)
  upright = np.rot90(np.asarray(image), -1)
  captioner = im2txt.Captioner.load(directory)
  stored = im2txt.Captioner.load(directory, exif_orientation=False)
  for turned in (out.getvalue(), Image.open(out)):
    assert captioner.caption(turned) == captioner.caption(upright)
    assert stored.caption(turned) == stored.caption(np.asarray(image))
  assert captioner.caption(upright) != captioner.caption(np.asarray(image))


def test_a_collection_goes_on_past_what_cannot_be_read(directory, captioner):
  images = [
    str(directory / '0.jpg'),
    str(directory / 'none.jpg'),
    directory / 'broken.jpg',
    testing.jpeg(3),
  ]
  first, missing, broken, last = captioner.caption_each(images)
  assert [c.image for c in (first, missing, broken, last)] == images
  assert first.error is last.error is None
  assert first.captions == captioner.caption(images[0])
  assert isinstance(missing.error, FileNotFoundError) and not missing.captions
  assert isinstance(broken.error, ValueError) and not broken.captions
  with pytest.raises(ValueError, match=r'^.*/broken\.jpg: damaged JPEG image'):
    captioner.caption(directory / 'broken.jpg')
  with pytest.raises(FileNotFoundError, match='none.jpg'):
    captioner.caption(images)


def test_a_collection_may_have_no_end(captioner):
  taken = itertools.count()

  def images():
    while True:
      yield testing.jpeg(next(taken) % 3)

  with contextlib.closing(captioner.caption_each(images())) as each:
    captions = [captioned.captions for captioned in itertools.islice(each, 5)]
  assert captions[:2] == captions[3:]
  # Three batches of two, of which those ahead of the caller are decoded.
  assert next(taken) <= 5 + 3 * captioner.batch_size


def test_what_is_no_image_is_refused(captioner):
  for image in (3, None, {'a': 1}.values(), [3]):
    with pytest.raises(TypeError, match='is no image: give the name'):
      captioner.caption(image)
  with pytest.raises(TypeError, match='float32 is no image: give uint8'):
    captioner.caption(np.zeros([4, 4, 3], np.float32))
  for shape in ([4], [4, 4, 2], [0, 4, 3]):
    with pytest.raises(ValueError, match='of shape .* is no image'):
      captioner.caption([np.zeros(shape, np.uint8)])
  with pytest.raises(TypeError, match='caption takes one'):
    next(captioner.caption_each('photo.jpg'))
  with pytest.raises(ValueError, match='the file is empty'):
    captioner.caption(b'')


def test_settings_of_the_search(directory, captioner):
  assert captioner.search.beam_size == 2
  wide = captioner.with_search(beam_size=4, forbidden_words=['dog'])
  assert wide.search.forbidden_words == ('dog',)
  captions = wide.caption(testing.jpeg())
  assert len(captions) == 4
  assert not any('dog' in c.text for c in captions)
  assert len(captioner.caption(testing.jpeg())) == 2
  assert wide.global_step == captioner.global_step == 10
  with pytest.raises(ValueError, match='beam_size=0 must be 1 or more'):
    im2txt.Captioner.load(directory, beam_size=0)
  with pytest.raises(TypeError, match='beam_sise'):
    im2txt.Captioner.load(directory, beam_sise=3)
  with pytest.raises(ValueError, match='batch_size=0 must be 1 or more'):
    im2txt.Captioner.load(directory, batch_size=0)


def test_what_lies_beside_a_checkpoint_is_found(directory, tmp_path):
  for path in directory.glob('model.ckpt-10*'):
    os.link(path, tmp_path / path.name)
  os.link(directory / 'configuration.json', tmp_path / 'configuration.json')
  prefix = tmp_path / 'model.ckpt-10'
  with pytest.raises(ValueError, match='no word_counts.txt lies beside .*-10'):
    im2txt.Captioner.load(prefix)
  given = im2txt.Captioner.load(
    prefix, vocab_file=directory / 'word_counts.txt'
  )
  os.link(directory / 'word_counts.txt', tmp_path / 'word_counts.txt')
  found = im2txt.Captioner.load(f'{prefix}.index')
  together = im2txt.Captioner.load([tmp_path, str(directory)])
  image = testing.jpeg()
  assert found.caption(image) == given.caption(image)
  assert len(together.model.prefixes) == 2
  with pytest.raises(ValueError, match='no checkpoint at'):
    im2txt.Captioner.load(tmp_path / 'none' / 'model.ckpt-1')


def test_without_a_name_it_is_the_model_of_get_model(
  directory, tmp_path, monkeypatch
):
  monkeypatch.setattr(files, 'pretrained_directory', lambda: str(tmp_path))
  with pytest.raises(ValueError, match='python -m im2txt.get_model'):
    im2txt.Captioner.load()
  monkeypatch.setattr(files, 'pretrained_directory', lambda: str(directory))
  assert im2txt.Captioner.load().caption(pathlib.Path(directory, '0.jpg'))


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
