# SPDX-License-Identifier: Apache-2.0
"""Tests of sample_scenes."""

import colorsys
import random
import re
import sys

import pytest

from im2txt.sample import scenes

_NUMBERS = {'one': 1, 'two': 2, 'three': 3, 'four': 4}
_SEEDS = range(60)


def scene_and_captions(seed):
  rng = random.Random(seed)
  scene = scenes.make_scene(rng)
  return scene, scenes.describe(scene, rng)


def words(caption):
  return re.findall('[a-z]+', caption.lower())


@pytest.mark.parametrize('seed', _SEEDS)
def test_captions_name_what_is_there(seed):
  scene, captions = scene_and_captions(seed)
  assert len(set(captions)) == scenes.CAPTIONS_PER_SCENE
  things = {(t.color, t.shape) for t in scene.things}
  for caption in captions:
    assert re.fullmatch(r'[A-Z][a-z ]+\.', caption)
    found = words(caption.replace(' in two rows', ''))
    # Plurals are of the same shape.
    pairs = {
      (a, b.removesuffix('s'))
      for a, b in zip(found, found[1:])
      if a in scenes.COLORS and b != 'color'
    }
    assert {p for p in pairs if p[1] in scenes.SHAPES} <= things
    assert set(found) & set(scenes.COLORS) <= {c for c, _ in things}
    for background in set(found) & set(scenes.BACKGROUNDS):
      assert background == scene.background
    for size in set(found) & {'small', 'large'}:
      assert size in {t.size for t in scene.things}
    for number in set(found) & set(_NUMBERS):
      assert _NUMBERS[number] <= len(scene.things)
      if scene.layout == 'group':
        assert _NUMBERS[number] == len(scene.things)


@pytest.mark.parametrize('seed', _SEEDS)
def test_relations_hold(seed):
  scene, _ = scene_and_captions(seed)
  first, last = scene.things[0], scene.things[-1]
  if scene.layout == 'above':
    assert first.y + first.radius < last.y
  elif scene.layout == 'beside':
    assert first.x + first.radius < last.x
  elif scene.layout == 'inside':
    assert first.radius < 0.5 * last.radius
  elif scene.layout == 'between':
    left, right = scene.things[1:]
    assert left.x < first.x < right.x
    assert (left.shape, left.color) == (right.shape, right.color)


def test_every_layout_and_every_word_of_the_world_occurs():
  made = [scene_and_captions(seed) for seed in range(300)]
  assert {s.layout for s, _ in made} == set(scenes.LAYOUTS)
  seen = {w for _, captions in made for c in captions for w in words(c)}
  assert seen >= {
    *scenes.COLORS,
    *scenes.SHAPES,
    *scenes.BACKGROUNDS,
    *_NUMBERS,
    'small',
    'large',
  }


@pytest.mark.parametrize('seed', _SEEDS)
def test_things_are_painted_in_their_color(seed):
  rng = random.Random(seed)
  scene = scenes.make_scene(rng)
  image = scenes.render(scene, rng)
  assert image.size == (scenes.WIDTH, scenes.HEIGHT)
  thing = scene.things[0]
  box = [round(v) for v in (thing.x - 4, thing.y - 4, thing.x + 4, thing.y + 4)]
  red, green, blue = image.crop(box).resize((1, 1), 4).getpixel((0, 0))
  hue = 360 * colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0]

  def distance(color):
    difference = abs(hue - scenes.COLORS[color][0])
    return min(difference, 360 - difference)

  assert min(scenes.COLORS, key=distance) == thing.color


def test_things_lie_within_the_image():
  for seed in range(300):
    for thing in scene_and_captions(seed)[0].things:
      for x, y in scenes.outline(thing, 0.06):
        assert 0 <= x < scenes.WIDTH and 0 <= y < scenes.HEIGHT


def test_equal_seeds_give_equal_images():
  images = []
  for seed in (1, 1, 2):
    rng = random.Random(seed)
    scene = scenes.make_scene(rng)
    images.append(scenes.render(scene, rng).tobytes())
  assert images[0] == images[1] != images[2]


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
