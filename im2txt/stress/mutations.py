# SPDX-License-Identifier: Apache-2.0
"""Damages bytes at random, as disks, networks and attackers do."""

from collections.abc import Callable
from collections.abc import Sequence
import random

import google_crc32c

from im2txt.runtime import files

# Extreme values of counts, sizes and offsets.
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

# From (generator, data, other files) to damaged data.
_Damage = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutate(
  rng: random.Random, data: bytes, others: Sequence[bytes] = (b'',)
) -> bytes:
  """Returns the bytes of a file with one to four faults.

  Args:
    rng: source of the faults.
    data: content of a good file.
    others: contents of files to splice with.
  """
  for _ in range(rng.randint(1, _MOST_TIMES)):
    damage: _Damage = rng.choice(
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
    data = damage(rng, data, others)
  return data


def mutate_in_place(
  rng: random.Random, data: bytes, start: int, end: int
) -> bytes:
  """Returns bytes of the same length with one to four faults in a part."""
  part = data[start:end]
  for _ in range(rng.randint(1, _MOST_TIMES)):
    part = rng.choice([_flip, _extreme])(rng, part, ())
  return data[:start] + part[: end - start] + data[end:]


def masked_crc(data: bytes) -> bytes:
  """Returns the CRC-32C of bytes in the form of TFRecords and checkpoints."""
  return files.masked(google_crc32c.value(data))


def _offset(rng: random.Random, data: bytes | bytearray) -> int:
  """Returns a random offset, half of the time in the header."""
  end = len(data) if rng.random() < 0.5 else min(len(data), 64)
  return rng.randrange(end) if end else 0


def _flip(
  rng: random.Random, data: bytes, unused_others: Sequence[bytes]
) -> bytes:
  flipped = bytearray(data)
  for _ in range(rng.choice([1, 1, 1, 8])):
    if flipped:
      flipped[_offset(rng, flipped)] ^= 1 << rng.randrange(8)
  return bytes(flipped)


def _extreme(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
  offset, size = _offset(rng, data), rng.choice([1, 2, 4, 8])
  value = rng.choice(_EXTREMES) & (1 << 8 * size) - 1
  return (
    data[:offset]
    + value.to_bytes(size, rng.choice(['little', 'big']))
    + data[offset + size :]
  )


def _cut_short(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
  return data[: rng.randrange(len(data) + 1)]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
  offset = _offset(rng, data)
  return (
    data[:offset] + rng.randbytes(rng.choice([1, 2, 16, 300])) + data[offset:]
  )


def _leave_out(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
  offset = _offset(rng, data)
  return data[:offset] + data[offset + rng.choice([1, 2, 16, 300]) :]


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
  offset, size = _offset(rng, data), rng.choice([1, 8, 64])
  return (
    data[:offset]
    + data[offset : offset + size] * rng.choice([2, 3, 1000])
    + data[offset + size :]
  )


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
  other = rng.choice(others)
  return data[: _offset(rng, data)] + other[_offset(rng, other) :]
