# SPDX-License-Identifier: Apache-2.0
"""Weights of Inception v3 for where no pretrained checkpoint is to be had.

The filters are random. What makes the features useful all the same is the
batch norm: its averages are set to the statistics of given images, layer after
layer, so that no layer's signal dies or explodes; and its beta is above zero,
so that most values pass their ReLU and colours and counts are still told apart
after 94 layers. Only the last layers keep no more than what stands out, so that
features differ more from image to image than they have in common, which
gradient descent would spend most of its steps on.

A linear probe finds colours, backgrounds and layouts in such features; to name
what is in a photo takes a network trained on photos.
"""

from im2txt.ops import image_embedding

_BETA = 1.0
# Of the last layers: what is less than 1.5 standard deviations above the mean
# is dropped, the rest multiplied by 5.
_LAST_THRESHOLD = 1.5
_LAST_SCALE = 5.0
_LAST_LAYERS = [f'InceptionV3/Mixed_7c/{layer}/BatchNorm/' for layer in (
    'Branch_0/Conv2d_0a_1x1', 'Branch_1/Conv2d_0b_1x3',
    'Branch_1/Conv2d_0c_3x1', 'Branch_2/Conv2d_0c_1x3',
    'Branch_2/Conv2d_0d_3x1', 'Branch_3/Conv2d_0b_1x1')]


def weights(images):
  """Returns random weights whose batch norm fits some images.

  Args:
    images: float32 [batch, height, width, 3] in [-1, 1].

  Returns:
    Dict from checkpoint name (`InceptionV3/Conv2d_1a_3x3/weights`, ...) to a
    float32 array; the 376 of `image_embedding.InceptionV3`.
  """
  inception = image_embedding.InceptionV3(
      trainable=True, height=images.shape[1], width=images.shape[2])
  variables = inception.named_variables
  averages = {n: v for n, v in variables.items() if '/moving_' in n}
  for name, variable in variables.items():
    if name.endswith('/beta'):
      variable.assign(variable * 0 + _BETA)
  # One pass in training moves each average by 1 - decay towards the batch's
  # statistics: far enough from zero to tell these.
  for variable in averages.values():
    variable.assign(variable * 0)
  inception(images, is_training=True)
  for variable in averages.values():
    variable.assign(variable / (1 - image_embedding.BATCH_NORM_DECAY))
  for layer in _LAST_LAYERS:
    beta, variance = (
        variables[layer + name] for name in ('beta', 'moving_variance'))
    beta.assign(beta * 0 - _LAST_THRESHOLD * _LAST_SCALE)
    variance.assign(variance / _LAST_SCALE**2)
  return {name: variable.numpy() for name, variable in variables.items()}
