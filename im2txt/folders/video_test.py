# SPDX-License-Identifier: Apache-2.0
"""Tests of video, on videos that are made here."""

import io
import struct
import sys

import numpy as np
import pytest

from im2txt.folders import video

_COLOURS = {
  'red': (200, 30, 30),
  'green': (30, 160, 30),
  'blue': (30, 30, 200),
}
_needs_av = pytest.mark.skipif(
  not video.is_available(), reason='PyAV is not installed'
)


def make(kind, scenes, codec='mpeg4', keyframes_every=5, size=(48, 32)):
  """Returns a video of ten frames per second; a scene is (colour, seconds).

  The upper half of each frame is darker.
  """
  import av

  out = io.BytesIO()
  with av.open(out, 'w', format=kind) as container:
    stream = container.add_stream(codec, rate=10)
    stream.width, stream.height = size
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.gop_size = keyframes_every
    for colour, seconds in scenes:
      pixels = np.empty([size[1], size[0], 3], np.uint8)
      pixels[:] = _COLOURS[colour]
      pixels[: size[1] // 2] //= 2
      for _ in range(round(10 * seconds)):
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
        for packet in stream.encode(frame):
          container.mux(packet)
    for packet in stream.encode():
      container.mux(packet)
  return out.getvalue()


def _found(path, seconds):
  """Returns (time, colour) of the frames."""
  return [
    (
      round(frame.time, 2),
      min(
        _COLOURS,
        key=lambda name: np.abs(frame.pixels[-4, 4] - _COLOURS[name]).sum(),
      ),
    )
    for frame in video.frames(str(path), seconds)
  ]


@_needs_av
@pytest.mark.parametrize(
  'kind, codec', [('mp4', 'mpeg4'), ('matroska', 'mpeg4'), ('webm', 'libvpx')]
)
def test_a_frame_of_each_scene_and_not_too_often(tmp_path, kind, codec):
  scenes = [('red', 2), ('green', 1), ('blue', 0.5), ('red', 1)]
  path = tmp_path / 'video'
  path.write_bytes(make(kind, scenes, codec))
  assert _found(path, 0.1) == [
    (0.0, 'red'),
    (2.0, 'green'),
    (3.0, 'blue'),
    (3.5, 'red'),
  ]
  assert _found(path, 1.5) == [(0.0, 'red'), (2.0, 'green'), (3.5, 'red')]


@_needs_av
def test_frames_are_upright(tmp_path):
  data = make('mp4', [('red', 0.5)])
  assert np.diff(_brightness(tmp_path, data, axis=1)) > 50  # Of rows.
  # The matrix of a phone that was held upright: a quarter turn to the right.
  place = data.index(b'tkhd') + 4 + 40
  assert data[place : place + 4] == struct.pack('>i', 1 << 16)
  turned = struct.pack(
    '>9i', 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30
  )
  data = data[:place] + turned + data[place + 36 :]
  left, right = _brightness(tmp_path, data, axis=0)
  assert left - right > 50


def _brightness(tmp_path, data, axis):
  """Returns that of the first and the last part along the other axis."""
  path = tmp_path / 'video.mp4'
  path.write_bytes(data)
  (frame,) = video.frames(str(path), 1)
  assert frame.pixels.shape == ((32, 48, 3) if axis else (48, 32, 3))
  lines = frame.pixels[:, :, 0].astype(float).mean(axis=axis)
  return lines[4], lines[-4]


@_needs_av
@pytest.mark.parametrize(
  'data, reason',
  [
    (b'', 'damaged video'),
    (b'no video at all' * 100, 'damaged video'),
    # A playlist would have other files, or a server, read.
    (b'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n', 'damaged'),
    (b'ffconcat version 1.0\nfile /etc/passwd\n', 'damaged'),
  ],
)
def test_what_is_no_video_is_told(tmp_path, data, reason):
  path = tmp_path / 'video.mp4'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=reason):
    list(video.frames(str(path), 1))


@_needs_av
def test_of_a_video_that_breaks_off_come_the_frames_before(tmp_path):
  path = tmp_path / 'video.mkv'
  path.write_bytes(make('matroska', [('red', 2), ('green', 2)])[:-300])
  assert _found(path, 1)[0] == (0.0, 'red')


def test_without_pyav_one_line_says_what_to_do(tmp_path, monkeypatch):
  monkeypatch.setattr(video, 'is_available', lambda: False)
  with pytest.raises(ValueError, match='requirements-video.txt'):
    next(video.frames(str(tmp_path / 'a.mp4'), 1))


def test_by_its_suffix():
  assert video.is_video('a/b.MP4') and not video.is_video('mp4.jpg')


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
