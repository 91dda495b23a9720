# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes of coloured shapes, each with captions that are true of it.

The quick start trains on these images, because it needs no real data set then.
A scene is a plain description of shapes and their positions. `render` paints it
and `describe` puts it into words, so the words always agree with the image. All
random choices use the `random.Random` that is passed in: equal seeds give equal
images.

The scenes suit an image encoder that was never trained: few shapes, large and
strongly coloured, on backgrounds that differ in brightness and texture.
"""

import colorsys
import dataclasses
import math
import random

import numpy as np
from PIL import Image
from PIL import ImageDraw

WIDTH = 400
HEIGHT = 300

# Hue in degrees, saturation and value of each color. Hues are so far apart that
# the jitter of `_jittered` never makes one look like another.
COLORS = {
  'red': (0, 0.95, 0.85),
  'orange': (30, 1.0, 1.0),
  'yellow': (56, 0.95, 0.98),
  'green': (125, 0.85, 0.62),
  'blue': (220, 0.95, 0.9),
  'purple': (285, 0.75, 0.65),
}
SHAPES = ('circle', 'square', 'triangle', 'star')
# Shapes with room for another shape inside.
_OUTER_SHAPES = ('circle', 'square')
BACKGROUNDS = ('white', 'black', 'striped', 'checked')
LAYOUTS = ('alone', 'group', 'above', 'beside', 'inside', 'between')

CAPTIONS_PER_SCENE = 5

_NUMBERS = {2: 'two', 3: 'three', 4: 'four'}
# Rendering is done at this multiple of the final size and scaled down.
_OVERSAMPLING = 2


@dataclasses.dataclass(frozen=True)
class Thing:
  """One shape; its center and radius are in pixels of the image."""

  shape: str
  color: str
  size: str  # 'small', 'medium' or 'large'
  x: float
  y: float
  radius: float


@dataclasses.dataclass(frozen=True)
class Scene:
  """The content of an image.

  Attributes:
    layout: one of LAYOUTS. It determines the order of the things: the only one
      ('alone'); equal things ('group'); the upper and the lower ('above'); the
      left and the right ('beside'); the inner and the outer ('inside'); the
      middle one and the two at its sides ('between').
    background: one of BACKGROUNDS.
    things: the shapes.
  """

  layout: str
  background: str
  things: tuple[Thing, ...]


def make_scene(rng: random.Random) -> Scene:
  """Makes a random scene; layouts, colors and backgrounds are equally likely."""
  layout = rng.choice(LAYOUTS)
  first, second = rng.sample(sorted(COLORS), 2)
  shape, other_shape = rng.choice(SHAPES), rng.choice(SHAPES)
  middle_x = WIDTH / 2 + rng.uniform(-15, 15)
  middle_y = HEIGHT / 2 + rng.uniform(-8, 8)

  things: tuple[Thing, ...]
  if layout == 'alone':
    size = rng.choice(('small', 'large'))
    radius = rng.uniform(36, 46) if size == 'small' else rng.uniform(98, 110)
    things = (Thing(shape, first, size, middle_x, middle_y, radius),)
  elif layout == 'group':
    count = rng.choice(sorted(_NUMBERS))
    if count == 4:
      radius = rng.uniform(46, 52)
      offsets = [(-75.0, -62.0), (75.0, -62.0), (-75.0, 62.0), (75.0, 62.0)]
    else:
      radius = {2: rng.uniform(62, 70), 3: rng.uniform(46, 50)}[count]
      step = {2: 156, 3: 112}[count]
      offsets = [(step * (i - (count - 1) / 2), 0.0) for i in range(count)]
    things = tuple(
      Thing(shape, first, 'medium', middle_x + dx, middle_y + dy, radius)
      for dx, dy in offsets
    )
  elif layout == 'above':
    radius = rng.uniform(52, 58)
    things = (
      Thing(shape, first, 'medium', middle_x, middle_y - 64, radius),
      Thing(
        other_shape,
        second,
        'medium',
        middle_x + rng.uniform(-20, 20),
        middle_y + 64,
        radius,
      ),
    )
  elif layout == 'beside':
    radius = rng.uniform(64, 72)
    things = (
      Thing(shape, first, 'medium', middle_x - 80, middle_y, radius),
      Thing(
        other_shape,
        second,
        'medium',
        middle_x + 80,
        middle_y + rng.uniform(-10, 10),
        radius,
      ),
    )
  elif layout == 'inside':
    things = (
      Thing(shape, first, 'small', middle_x, middle_y, rng.uniform(46, 52)),
      Thing(
        rng.choice(_OUTER_SHAPES),
        second,
        'large',
        middle_x,
        middle_y,
        rng.uniform(108, 116),
      ),
    )
  else:
    radius = rng.uniform(46, 50)
    things = tuple(
      Thing(s, c, 'medium', middle_x + dx, middle_y, radius)
      for s, c, dx in (
        (shape, first, 0),
        (other_shape, second, -112),
        (other_shape, second, 112),
      )
    )
  return Scene(layout, rng.choice(BACKGROUNDS), things)


def outline(thing: Thing, tilt: float = 0.0) -> list[tuple[float, float]]:
  """Returns the corners of a shape's outer edge, in pixels of the image."""
  radii = {
    'circle': [1.0] * 48,
    'square': [1.15] * 4,
    'triangle': [1.15] * 3,
    'star': [1.15, 0.48] * 5,
  }
  # The first corner of a triangle or star points up; a square stands flat.
  shift = math.pi / 4 if thing.shape == 'square' else 0
  corners = []
  for i, radius in enumerate(radii[thing.shape]):
    angle = 2 * math.pi * i / len(radii[thing.shape]) + shift
    corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
  cos, sin = math.cos(tilt), math.sin(tilt)
  return [
    (
      thing.x + thing.radius * (x * cos - y * sin),
      thing.y + thing.radius * (x * sin + y * cos),
    )
    for x, y in corners
  ]


def render(scene: Scene, rng: random.Random) -> Image.Image:
  """Paints a scene.

  Args:
    scene: the scene.
    rng: source of shades, tilts, textures and grain.

  Returns:
    An RGB image of WIDTH x HEIGHT pixels.
  """
  noise = np.random.default_rng(rng.getrandbits(64))
  canvas = _paint_background(scene.background, rng)
  # A thing inside another one is painted after it.
  for thing in sorted(scene.things, key=lambda t: -t.radius):
    color = _jittered(thing.color, rng)
    _paint(canvas, thing, color, rng.uniform(-0.06, 0.06))
  pixels = np.asarray(
    canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), np.float32
  )

  # Uneven light from one side, then grain, as in a photo.
  y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
  angle = rng.uniform(0, 2 * math.pi)
  light = 1 + 0.08 * (x * math.cos(angle) + y * math.sin(angle))
  pixels = pixels * light[..., None]
  pixels += noise.normal(0, rng.uniform(2, 6), pixels.shape)
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _jittered(color: str, rng: random.Random) -> tuple[int, int, int]:
  degrees, saturation, value = COLORS[color]
  hue = (degrees + rng.uniform(-5, 5)) % 360
  saturation = min(1.0, saturation * rng.uniform(0.92, 1.0))
  value = min(1.0, value * rng.uniform(0.93, 1.05))
  red, green, blue = colorsys.hsv_to_rgb(hue / 360, saturation, value)
  return round(255 * red), round(255 * green), round(255 * blue)


def _paint_background(background: str, rng: random.Random) -> Image.Image:
  width, height = WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING
  base = {'white': 238, 'black': 22}.get(background, 205) + rng.randint(-8, 8)
  canvas = Image.new('RGB', (width, height), (base, base, base))
  draw = ImageDraw.Draw(canvas)
  dark = base - rng.randint(75, 95)
  step = rng.randint(18, 24) * _OVERSAMPLING
  offset = rng.randrange(step)
  if background == 'striped':
    for y in range(-offset, height, 2 * step):
      draw.rectangle((0, y, width, y + step - 1), fill=(dark, dark, dark))
  elif background == 'checked':
    for row, y in enumerate(range(-offset, height, step)):
      for x in range(-offset + (row % 2) * step, width, 2 * step):
        draw.rectangle(
          (x, y, x + step - 1, y + step - 1), fill=(dark, dark, dark)
        )
  return canvas


def _paint(
  canvas: Image.Image, thing: Thing, color: tuple[int, int, int], tilt: float
) -> None:
  edge = [
    (x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in outline(thing, tilt)
  ]
  mask = Image.new('L', canvas.size, 0)
  draw = ImageDraw.Draw(mask)
  draw.polygon(edge, fill=255)
  canvas.paste(color, mask=mask)


def describe(scene: Scene, rng: random.Random) -> list[str]:
  """Puts a scene into words, as five people would.

  Args:
    scene: the scene.
    rng: source of the choice of the sentences and of their order.

  Returns:
    CAPTIONS_PER_SCENE different sentences, each true of the scene. The plainest
    sentence is always one of them, so that a correct generated caption can be
    found among the references.
  """
  plain, *others = _sentences(scene)
  chosen = [plain] + rng.sample(others, CAPTIONS_PER_SCENE - 1)
  rng.shuffle(chosen)
  return [f'{sentence[0].upper()}{sentence[1:]}.' for sentence in chosen]


def _sentences(scene: Scene) -> list[str]:
  """Returns all sentences for a scene, the plainest first."""
  first, last = scene.things[0], scene.things[-1]
  on = f'on a {scene.background} background'
  a, b = f'{first.color} {first.shape}', f'{last.color} {last.shape}'
  an_a, an_b = _with_article(a), _with_article(b)

  if scene.layout == 'alone':
    size = first.size
    return [
      f'a {size} {a} {on}',
      f'{an_a} {on}',
      f'there is one {size} {a} in the middle',
      f'the {first.shape} is {first.color} and the background is '
      f'{scene.background}',
      f'a single {a} {on}',
      f'a picture of a {size} {a}',
      f'a {scene.background} background with one {a}',
    ]
  if scene.layout == 'group':
    number = _NUMBERS[len(scene.things)]
    in_rows = 'in two rows' if len(scene.things) == 4 else 'in a row'
    return [
      f'{number} {a}s {on}',
      f'{number} {a}s {in_rows}',
      f'there are {number} {a}s in this picture',
      f'a {scene.background} background with {number} {a}s',
      f'all of the {number} {first.shape}s are {first.color}',
      f'a picture of {number} {a}s',
      f'{number} {first.shape}s of the same {first.color} color',
    ]
  if scene.layout == 'above':
    return [
      f'{an_a} above {an_b}',
      f'{an_b} below {an_a}',
      f'the {a} is above the {b}',
      f'there is {an_a} at the top and {an_b} at the bottom',
      f'{an_a} over {an_b} {on}',
      f'a picture of {an_b} under {an_a}',
    ]
  if scene.layout == 'beside':
    return [
      f'{an_a} next to {an_b}',
      f'{an_a} to the left of {an_b}',
      f'{an_b} to the right of {an_a}',
      f'there is {an_a} on the left and {an_b} on the right',
      f'{an_a} beside {an_b} {on}',
      f'{an_a} and {an_b} side by side',
    ]
  if scene.layout == 'inside':
    return [
      f'{an_a} inside {an_b}',
      f'a small {a} in the middle of a large {b}',
      f'the {a} is inside the {b}',
      f'{an_b} with {an_a} in it',
      f'a large {b} around a small {a} {on}',
      f'{an_a} lies within {an_b}',
    ]
  return [
    f'{an_a} between two {b}s',
    f'two {b}s with {an_a} between them',
    f'the {a} is between the {b}s',
    f'there are two {b}s and one {a} in a row',
    f'{an_a} with {an_b} on each side',
    f'{an_a} in the middle of two {b}s {on}',
  ]


def _with_article(noun_phrase: str) -> str:
  return f'{"an" if noun_phrase[0] in "aeiou" else "a"} {noun_phrase}'
