# SPDX-License-Identifier: Apache-2.0
"""What a data set of any size needs, from what one image costs one core.

  python -m im2txt.benchmarks.scale [--pairs=10000,1000000,100000000]

prints the tables of docs/scale.md. A figure is a cost that was measured, times
a number of images, captions or passes. Each cost is a flag, so that the tables
can be made again for other machines and other data.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import sys

from im2txt.runtime.flag_dataclasses import field

_HOUR = 3600
_GB = 1e9


@dataclasses.dataclass(frozen=True)
class Costs:
  """What one image or caption costs. Seconds are those of one core."""

  check_seconds: float = field(
    0.0058, 'Preparation: read and check an image of --image_bytes.'
  )
  record_seconds: float = field(
    0.0009, 'Preparation: read an image again and write a record of it.'
  )
  caption_seconds: float = field(
    0.00004, 'Preparation: tokenize, count and place a caption.'
  )
  encode_seconds: float = field(
    0.112, 'Features: a pass of Inception v3 over an image, in float32.'
  )
  train_seconds: float = field(
    0.0084, 'Training: a caption, forward and back, from cached features.'
  )
  index_seconds: float = field(
    0.00043, 'Training: read a caption at the start, in every process.'
  )
  image_bytes: float = field(160_000, 'A file of an image.')
  feature_bytes: float = field(8192, 'The features of a view of an image.')
  caption_bytes: float = field(250, 'A caption in a record.')
  driver_bytes: float = field(
    710, 'Preparation: memory of a caption in the process that plans.'
  )
  index_bytes: float = field(
    250, 'Training: memory of a caption in every training process.'
  )


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is done with the pairs."""

  captions_per_image: float = field(
    1, 'Captions per image: 5 in MSCOCO, 1 in pairs from the web.'
  )
  views: int = field(
    1, 'Views of each image whose features are kept, undistorted one included.'
  )
  epochs: float = field(10, 'Passes of the training over all captions.')


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a data set needs.

  Attributes:
    hours: hours of one core, by stage.
    disk: bytes on disk, by what they hold.
    memory: bytes in one process, by what they are for.
  """

  hours: dict[str, float]
  disk: dict[str, float]
  memory: dict[str, float]


def needs(pairs: float, costs: Costs, plan: Plan) -> Needs:
  """Returns what a number of pairs of image and caption needs.

  >>> found = needs(3600, Costs(encode_seconds=1), Plan(views=2))
  >>> found.hours['features']
  2.0

  Args:
    pairs: number of pairs.
    costs: what one costs.
    plan: what is done with them.
  """
  images = pairs / plan.captions_per_image
  return Needs(
    {
      'preparation': (
        images * (costs.check_seconds + costs.record_seconds)
        + pairs * costs.caption_seconds
      )
      / _HOUR,
      'features': images * plan.views * costs.encode_seconds / _HOUR,
      'start of training': pairs * costs.index_seconds / _HOUR,
      'training': pairs * plan.epochs * costs.train_seconds / _HOUR,
    },
    {
      'images': images * costs.image_bytes,
      'shards, pairs': pairs * (costs.image_bytes + costs.caption_bytes),
      'shards, compact': images * costs.image_bytes
      + pairs * costs.caption_bytes,
      'features': images * plan.views * costs.feature_bytes,
    },
    {
      'planning the shards': pairs * costs.driver_bytes,
      'training': pairs * costs.index_bytes,
    },
  )


def bottleneck(of_size: Needs) -> str:
  """Returns the stage that takes most time of one core."""
  return max(of_size.hours, key=lambda stage: of_size.hours[stage])


def _number(value: float) -> str:
  """Returns a number with two significant digits.

  >>> [_number(value) for value in (0.0123, 0.4, 15.7, 1234.0, 98765.0)]
  ['0.012', '0.4', '16', '1,200', '99,000']
  """
  return f'{float(f"{value:.2g}"):,.10g}'


def table(sizes: Sequence[float], costs: Costs, plan: Plan) -> str:
  """Returns a table in Markdown, with a column per size."""
  found = [needs(pairs, costs, plan) for pairs in sizes]
  lines = [
    '| | ' + ' | '.join(f'{pairs:,.0f} pairs' for pairs in sizes) + ' |',
    '| --- |' + ' --: |' * len(sizes),
  ]

  def row(name: str, values: Sequence[str]) -> None:
    lines.append(f'| {name} | ' + ' | '.join(values) + ' |')

  for stage in found[0].hours:
    row(f'{stage}, hours of a core', [_number(n.hours[stage]) for n in found])
  row('most time', [bottleneck(n) for n in found])
  for kind in found[0].disk:
    row(f'{kind}, GB', [_number(n.disk[kind] / _GB) for n in found])
  for kind in found[0].memory:
    row(
      f'memory for {kind}, GB', [_number(n.memory[kind] / _GB) for n in found]
    )
  return '\n'.join(lines)


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--pairs',
    default='10000,1000000,100000000',
    help='numbers of pairs, separated by commas',
  )
  for kind in (Costs, Plan):
    for a_field in dataclasses.fields(kind):
      parser.add_argument(
        f'--{a_field.name}',
        type=type(a_field.default),
        default=a_field.default,
        help=f'{a_field.metadata["help"]} (%(default)s)',
      )
  args = vars(parser.parse_args())
  try:
    sizes = [float(size) for size in args.pop('pairs').split(',')]
  except ValueError as error:
    parser.error(f'--pairs: {error}: give numbers, separated by commas')
  plan = Plan(**{f.name: args.pop(f.name) for f in dataclasses.fields(Plan)})
  print(table(sizes, Costs(**args), plan))
  return 0


if __name__ == '__main__':
  sys.exit(main())
