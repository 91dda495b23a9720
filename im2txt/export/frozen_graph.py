# SPDX-License-Identifier: Apache-2.0
"""Exports a model as a frozen graph with the names of the 2016 program.

In 2016 the search ran outside of the graph, in Python or C++, by these tensors:

  image_feed               string scalar, the bytes of a JPEG (or PNG)
  lstm/initial_state       float32 [1, state_size], after the image
  input_feed               int64 [n], the last word of each partial caption
  lstm/state_feed          float32 [n, state_size], its state
  softmax                  float32 [n, vocab_size], of the next word
  lstm/state               float32 [n, state_size], the new state
"""

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from im2txt.inference_utils import captioner as captioner_lib
from im2txt.ops import image_processing
from im2txt.runtime import files

INPUTS = ('image_feed', 'input_feed', 'lstm/state_feed')
OUTPUTS = ('lstm/initial_state', 'softmax', 'lstm/state')


def build(captioner: captioner_lib.Captioner) -> tf.compat.v1.GraphDef:
  """Returns the graph of a model, whose variables are constants.

  As in 2016, images are not turned by their EXIF data.

  Args:
    captioner: the model. The search is not in the graph.
  """
  model = captioner.model

  def run(
    image: tf.Tensor, words: tf.Tensor, states: tf.Tensor
  ) -> tuple[tf.Tensor, ...]:
    images = image_processing.process_image(
      image, height=model.config.image_height, width=model.config.image_width
    )
    features = captioner.encode_batch(images[tf.newaxis])
    return model.initial_state(features), *model.inference_step(words, states)

  # In the order of INPUTS.
  specs = [
    tf.TensorSpec([], tf.string),
    tf.TensorSpec([None], tf.int64),
    tf.TensorSpec([None, model.state_size]),
  ]
  # With control flow of 2016: readers of frozen graphs may know no other.
  frozen = convert_to_constants.convert_variables_to_constants_v2(
    tf.function(run, autograph=False).get_concrete_function(*specs),
    lower_control_flow=True,
  )
  with tf.Graph().as_default() as graph:
    feeds = [
      tf.compat.v1.placeholder(spec.dtype, spec.shape, name=name)
      for name, spec in zip(INPUTS, specs)
    ]
    results = tf.graph_util.import_graph_def(
      frozen.graph.as_graph_def(),
      input_map={
        tensor.name: feed for tensor, feed in zip(frozen.inputs, feeds)
      },
      # An output itself waits until all variables are read, those of the
      # other outputs too.
      return_elements=[tensor.op.inputs[0].name for tensor in frozen.outputs],
      name='im2txt',
    )
    for name, result in zip(OUTPUTS, results):
      tf.identity(result, name=name)
  return _of_outputs(graph.as_graph_def())


def _of_outputs(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
  """Returns the part of a graph that OUTPUTS depend on."""
  nodes = {node.name: node for node in graph.node}
  needed: set[str] = set()
  left = list(OUTPUTS)
  while left:
    name = left.pop()
    if name not in needed:
      needed.add(name)
      left += [x.lstrip('^').partition(':')[0] for x in nodes[name].input]
  return tf.compat.v1.GraphDef(
    node=[node for node in graph.node if node.name in needed],
    library=graph.library,
    versions=graph.versions,
  )


def save(captioner: captioner_lib.Captioner, path: str) -> None:
  """Writes the graph of `build` to a file.

  Args:
    captioner: see `build`.
    path: of the file, a serialized `GraphDef`.

  Raises:
    OSError: it could not be written.
  """
  content = build(captioner).SerializeToString()
  with files.writing(path) as f:
    f.write(content)
