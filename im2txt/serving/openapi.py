# SPDX-License-Identifier: Apache-2.0
"""The endpoints in the words of OpenAPI."""

from typing import Any

from im2txt.serving import options as options_lib

_CAPTION = {
  'type': 'object',
  'required': ['caption', 'probability', 'log_probability'],
  'properties': {
    'caption': {'type': 'string', 'example': 'a brown dog runs .'},
    'probability': {
      'type': 'number',
      'description': 'Of the whole sentence, so it is small.',
    },
    'log_probability': {'type': 'number'},
    'confidence': {
      'type': 'number',
      'description': 'Probability that the caption would score well, if that '
      'was fitted for the model.',
    },
  },
}
_ABSTAINED = {
  'type': 'number',
  'description': 'Of the best caption, where it is below --min_confidence: '
  'there are no captions.',
}
_IMAGE = {
  'type': 'object',
  'required': ['image'],
  'description': 'Captions, best first; or why there are none.',
  'properties': {
    'image': {'type': 'string', 'description': 'As the client calls it.'},
    'captions': {
      'type': 'array',
      'items': {'$ref': '#/components/schemas/Caption'},
    },
    'abstained_at_confidence': _ABSTAINED,
    'error': {'type': 'string'},
    'status': {'type': 'integer', 'description': 'Of this image: 4xx or 5xx.'},
  },
}
_PARTIAL = {
  'type': 'object',
  'properties': {
    'words': {'type': 'array', 'items': {'type': 'string'}},
    'log_probability': {'type': 'number'},
    'parent': {
      'type': ['integer', 'null'],
      'description': 'Place of the caption that it extends by its last word.',
    },
    'alternatives': {
      'type': 'array',
      'description': 'The likeliest next words.',
      'items': {
        'type': 'object',
        'properties': {
          'word': {'type': 'string'},
          'probability': {'type': 'number'},
        },
      },
    },
  },
}
_ERROR = {
  'type': 'object',
  'required': ['error'],
  'properties': {'error': {'type': 'string', 'description': 'One line.'}},
}
_BASE64 = {
  'type': 'object',
  'required': ['b64'],
  'properties': {'b64': {'type': 'string', 'format': 'byte'}},
}
_FILES = {
  'multipart/form-data': {
    'schema': {
      'type': 'object',
      'description': 'Every part with a file name is an image.',
      'properties': {
        'image': {
          'type': 'array',
          'items': {'type': 'string', 'format': 'binary'},
        }
      },
    }
  },
  'image/*': {'schema': {'type': 'string', 'format': 'binary'}},
  'application/octet-stream': {
    'schema': {'type': 'string', 'format': 'binary'}
  },
}
_REFUSED = {
  '400': 'No image, or a damaged request.',
  '408': 'The request was received too slowly.',
  '413': 'Too many bytes, pixels or images.',
  '415': 'A kind of file that is not read.',
  '422': 'A damaged image.',
  '429': 'Too much to do: come again after Retry-After seconds.',
  '503': 'Not ready yet: come again after Retry-After seconds.',
  '504': 'Not captioned in time.',
}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
  return {
    'description': description,
    'content': {'application/json': {'schema': schema}},
  }


def _operation(
  summary: str, answer: dict[str, Any], refused: dict[str, str], **more: Any
) -> dict[str, Any]:
  error = {'$ref': '#/components/schemas/Error'}
  return {
    'summary': summary,
    'responses': {
      '200': answer,
      **{
        status: _json(error, description)
        for status, description in refused.items()
      },
    },
    **more,
  }


def _object(**properties: Any) -> dict[str, Any]:
  return {'type': 'object', 'properties': properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
  return {'type': 'array', 'items': items}


def document(options: options_lib.Options) -> dict[str, Any]:
  """Returns the OpenAPI document of a server, as JSON has it.

  Args:
    options: its limits, which the document tells.
  """
  limits = (
    f'At most {options.max_request_images} images and '
    f'{options.max_request_bytes} bytes; of an image '
    f'{options.max_image_bytes} bytes and {options.max_image_pixels} pixels.'
  )
  return {
    'openapi': '3.1.0',
    'info': {
      'title': 'im2txt',
      'description': 'Captions of images. ' + limits,
      'version': '1',
      'license': {'name': 'Apache-2.0', 'identifier': 'Apache-2.0'},
    },
    'paths': {
      '/v1/captions': {
        'post': _operation(
          'Captions of an image, or of several',
          _json(
            _object(images=_list({'$ref': '#/components/schemas/Image'})),
            'One entry per image. Bad images have an error, and the others '
            'captions; if all are bad, the status is that of the first.',
          ),
          _REFUSED,
          requestBody={'required': True, 'content': _FILES},
        )
      },
      '/v1/beams': {
        'post': _operation(
          'The beam as it grew, for one image',
          _json(
            _object(
              steps=_list(
                _object(
                  partial=_list({'$ref': '#/components/schemas/Partial'}),
                  ended=_list({'$ref': '#/components/schemas/Partial'}),
                )
              ),
              captions=_list({'$ref': '#/components/schemas/Caption'}),
            ),
            'Partial captions of each step, best first, that a word is added '
            'to; and those that end with it.',
          ),
          _REFUSED,
          requestBody={'required': True, 'content': _FILES},
        )
      },
      '/v1/attributions': {
        'post': _operation(
          'The regions of one image that the words of a caption rest on',
          _json(
            _object(
              words=_list({'type': 'string'}),
              log_probabilities=_list({'type': 'number'}),
              maps=_list(_list(_list({'type': 'number'}))),
              seen=_list({'type': 'number'}),
            ),
            'A map for each word, rows of numbers: what each region adds to '
            'its log probability. The maps cover the part `seen` of the image: '
            'left, top, right and bottom as shares of its size.',
          ),
          _REFUSED,
          parameters=[
            {
              'name': 'words',
              'in': 'query',
              'required': True,
              'description': 'The words of the caption, a JSON list.',
              'schema': {'type': 'string', 'example': '["a", "dog"]'},
            }
          ],
          requestBody={'required': True, 'content': _FILES},
        )
      },
      '/v1/models/im2txt:predict': {
        'post': _operation(
          'The same in the format of TensorFlow Serving',
          _json(
            _object(
              predictions=_list(
                _object(
                  captions=_list({'type': 'string'}),
                  log_probabilities=_list({'type': 'number'}),
                  confidences=_list({'type': 'number'}),
                  abstained_at_confidence=_ABSTAINED,
                )
              )
            ),
            'One prediction per instance; {"error": "..."} of a bad one.',
          ),
          _REFUSED,
          requestBody={
            'required': True,
            'content': {
              'application/json': {
                'schema': _object(
                  instances=_list({'$ref': '#/components/schemas/Base64'})
                )
              }
            },
          },
        )
      },
      '/v1/models/im2txt': {
        'get': _operation(
          'The model, as TensorFlow Serving tells',
          _json(
            _object(model_version_status=_list({'type': 'object'})),
            'Its version is the training step.',
          ),
          {},
        )
      },
      '/': {
        'get': _operation(
          'The page',
          {
            'description': 'HTML.',
            'content': {'text/html': {'schema': {'type': 'string'}}},
          },
          {},
        )
      },
      '/photos': {
        'get': _operation(
          'The names of example photos',
          _json(
            _object(photos=_list({'type': 'string'})), 'There may be none.'
          ),
          {},
        )
      },
      '/photos/{name}': {
        'get': _operation(
          'An example photo',
          {
            'description': 'The photo.',
            'content': {'image/jpeg': {'schema': {'type': 'string'}}},
          },
          {'404': 'There is none of that name.'},
          parameters=[
            {
              'name': 'name',
              'in': 'path',
              'required': True,
              'schema': {'type': 'string'},
            }
          ],
        )
      },
      '/healthz': {
        'get': _operation(
          'Whether the process lives', _json(_object(), 'It does.'), {}
        )
      },
      '/readyz': {
        'get': _operation(
          'Whether captions are written',
          _json(_object(), 'They are.'),
          {'503': _REFUSED['503']},
        )
      },
      '/metrics': {
        'get': _operation(
          'Metrics for Prometheus',
          {
            'description': 'Counters, gauges and histograms.',
            'content': {'text/plain': {'schema': {'type': 'string'}}},
          },
          {},
        )
      },
      '/openapi.json': {
        'get': _operation('This document', _json(_object(), 'OpenAPI.'), {})
      },
    },
    'components': {
      'schemas': {
        'Base64': _BASE64,
        'Caption': _CAPTION,
        'Error': _ERROR,
        'Image': _IMAGE,
        'Partial': _PARTIAL,
      }
    },
  }
