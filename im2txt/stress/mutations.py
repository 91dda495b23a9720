# SPDX-License-Identifier: Apache-2.0
"""Damages bytes at random, as disks, networks and attackers do."""

import google_crc32c

from im2txt.runtime import files

# What counts, sizes and offsets are set to: the ends of their ranges.
_EXTREMES = [
  0,
  1,
  0x7F,
  0x80,
  0xFF,
  0x7FFF,
  0x8000,
  0xFFFF,
  0x7FFFFFFF,
  0x80000000,
  0xFFFFFFFF,
  2**62,
  2**63 - 1,
  2**63,
  2**64 - 1,
]
_MOST_TIMES = 4


def mutate(rng, data, others=(b'',)):
  """Returns the bytes of a file with one to four faults.

  Args:
    rng: `random.Random`.
    data: bytes of a good file.
    others: list of bytes, files that it is spliced with.
  """
  for _ in range(rng.randint(1, _MOST_TIMES)):
    kind = rng.choice(
      [
        _flip,
        _flip,
        _extreme,
        _extreme,
        _cut_short,
        _insert,
        _leave_out,
        _repeat,
        _splice,
      ]
    )
    data = kind(rng, data, others)
  return data


def mutate_in_place(rng, data, start, end):
  """Returns the bytes with one to four faults in a part, of the same length."""
  part = data[start:end]
  for _ in range(rng.randint(1, _MOST_TIMES)):
    part = rng.choice([_flip, _extreme])(rng, part, ())
  return data[:start] + part[: end - start] + data[end:]


def masked_crc(data):
  """Returns the CRC-32C of bytes as TFRecords and checkpoints have it."""
  return files.masked(google_crc32c.value(data))


def _place(rng, data):
  """Returns an offset, in the header as often as elsewhere."""
  end = len(data) if rng.random() < 0.5 else min(len(data), 64)
  return rng.randrange(end) if end else 0


def _flip(rng, data, _):
  data = bytearray(data)
  for _ in range(rng.choice([1, 1, 1, 8])):
    if data:
      data[_place(rng, data)] ^= 1 << rng.randrange(8)
  return bytes(data)


def _extreme(rng, data, _):
  place, size = _place(rng, data), rng.choice([1, 2, 4, 8])
  value = rng.choice(_EXTREMES) & (1 << 8 * size) - 1
  return (
    data[:place]
    + value.to_bytes(size, rng.choice(['little', 'big']))
    + data[place + size :]
  )


def _cut_short(rng, data, _):
  return data[: rng.randrange(len(data) + 1)]


def _insert(rng, data, _):
  place = _place(rng, data)
  return (
    data[:place] + rng.randbytes(rng.choice([1, 2, 16, 300])) + data[place:]
  )


def _leave_out(rng, data, _):
  place = _place(rng, data)
  return data[:place] + data[place + rng.choice([1, 2, 16, 300]) :]


def _repeat(rng, data, _):
  place, size = _place(rng, data), rng.choice([1, 8, 64])
  return (
    data[:place]
    + data[place : place + size] * rng.choice([2, 3, 1000])
    + data[place + size :]
  )


def _splice(rng, data, others):
  other = rng.choice(others)
  return data[: _place(rng, data)] + other[_place(rng, other) :]
