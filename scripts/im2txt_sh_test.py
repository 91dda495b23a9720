# SPDX-License-Identifier: Apache-2.0
"""Tests for scripts/im2txt.sh: what each function runs, and how it ends."""

import os
import shutil
import subprocess
import sys

import pytest

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'im2txt.sh')
_PROGRAMS = [
  'download_and_preprocess_mscoco',
  'get_inception',
  'get_model',
  'train',
  'evaluate',
  'doctor',
  'run_inference',
  'search',
  'serve',
]

# Stands for each program: says how it was called and ends with STATUS.
_PROGRAM = """#!/bin/sh
printf '%s\\n' "${0##*/}" "$@"
exit "${STATUS:-0}"
"""
# Stands for Bazel: says where and what it is to build, and builds it.
_BAZEL = """#!/bin/sh
printf '%s\\n' bazel "$PWD" "$@" >&2
[ -z "${BUILD_FAILS:-}" ] || exit 37
mkdir -p bazel-bin/im2txt
for target; do :; done
cp "$STAND_IN" "bazel-bin/$target"
"""


@pytest.fixture(params=['bash', 'zsh'])
def shell(request):
  if not shutil.which(request.param):
    pytest.skip(f'{request.param} is not installed')
  # Without the user's own settings.
  return {'bash': ['bash', '--norc', '-c'], 'zsh': ['zsh', '-f', '-c']}[
    request.param
  ]


@pytest.fixture
def project(tmp_path):
  """A project with the script, and a space in its path."""
  root = tmp_path / 'a project'
  (root / 'scripts').mkdir(parents=True)
  shutil.copy(_SOURCE, root / 'scripts' / 'im2txt.sh')
  for name, text in [
    ('stand_in', _PROGRAM),
    ('bin/bazel', _BAZEL),
    ('.venv/bin/python3', _PROGRAM),
  ] + [(f'programs/{name}', _PROGRAM) for name in _PROGRAMS]:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
  return root


@pytest.fixture
def buildable(project):
  """The project in a path that Bazel takes."""
  return project.rename(project.parent / 'project')


def _run(shell, project, commands, build=False, **variables):
  """Sources the script in a directory of its own and runs `commands`."""
  elsewhere = project.parent / 'elsewhere'
  elsewhere.mkdir(exist_ok=True)
  environ = {
    'PATH': f'{project}/bin:{os.environ["PATH"]}',
    **variables,
    'STAND_IN': str(project / 'stand_in'),
  }
  if not build:
    environ['IM2TXT_BIN_DIR'] = str(project / 'programs')
  return subprocess.run(
    [*shell, f'. "{project}/scripts/im2txt.sh"\n{commands}'],
    cwd=elsewhere,
    env=environ,
    capture_output=True,
    check=False,
    text=True,
  )


def _called(*args, **kwargs):
  result = _run(*args, **kwargs)
  assert result.returncode == 0, result.stderr
  # But which model it is.
  assert not [
    line
    for line in result.stderr.splitlines()
    if not line.startswith(('caption: ', 'search: ', 'serve: '))
  ]
  return result.stdout.splitlines()


def test_defaults_are_in_the_project(shell, project):
  data = f'{project}/data'
  assert _called(shell, project, 'prepare') == [
    'download_and_preprocess_mscoco',
    f'{data}/mscoco',
  ]
  assert _called(shell, project, 'get_inception') == [
    'get_inception',
    f'{data}/inception',
  ]
  assert _called(shell, project, 'get_model') == [
    'get_model',
    f'{data}/pretrained',
  ]
  assert _called(shell, project, 'train') == [
    'train',
    f'--input_file_pattern={data}/mscoco/train-?????-of-00256',
    f'--inception_checkpoint_file={data}/inception/inception_v3.ckpt',
    f'--train_dir={data}/model/train',
    '--train_inception=false',
    '--number_of_steps=1000000',
  ]
  assert _called(shell, project, 'fine_tune') == [
    'train',
    f'--input_file_pattern={data}/mscoco/train-?????-of-00256',
    f'--train_dir={data}/model/train',
    '--train_inception=true',
    '--number_of_steps=3000000',
  ]
  assert _called(shell, project, 'evaluate') == [
    'evaluate',
    f'--input_file_pattern={data}/mscoco/val-?????-of-00004',
    f'--checkpoint_dir={data}/model/train',
    f'--eval_dir={data}/model/eval',
    f'--vocab_file={data}/mscoco/word_counts.txt',
  ]
  assert _called(shell, project, 'doctor') == [
    'doctor',
    f'--train_dir={data}/model/train',
    f'--input_file_pattern={data}/mscoco/train-?????-of-00256',
    f'--vocab_file={data}/mscoco/word_counts.txt',
  ]
  assert _called(shell, project, 'serve --port=0') == [
    'serve',
    f'--checkpoint_path={data}/model/train',
    f'--vocab_file={data}/mscoco/word_counts.txt',
    '--port=0',
  ]
  assert _called(shell, project, "search --text='a dog'") == [
    'search',
    f'--checkpoint_path={data}/model/train',
    f'--vocab_file={data}/mscoco/word_counts.txt',
    f'--index_file={data}/photos.index',
    '--text=a dog',
  ]
  assert _called(shell, project, 'caption a.jpg') == [
    'run_inference',
    f'--checkpoint_path={data}/model/train',
    f'--vocab_file={data}/mscoco/word_counts.txt',
    'a.jpg',
  ]
  assert _called(shell, project, 'tensorboard') == [
    'python3',
    '-c',
    'import im2txt; from tensorboard import main; main.run_main()',
    f'--logdir={data}/model',
  ]


def test_variables_override_and_lead_to_others(shell, project):
  variables = {
    'MSCOCO_DIR': 'my coco',
    'INCEPTION_DIR': '/i',
    'MODEL_DIR': '/m',
    'NUMBER_OF_STEPS': '7',
    'FINE_TUNE_STEPS': '9',
  }
  assert _called(shell, project, 'prepare', **variables) == [
    'download_and_preprocess_mscoco',
    'my coco',
  ]
  assert _called(shell, project, 'train', **variables) == [
    'train',
    '--input_file_pattern=my coco/train-?????-of-00256',
    '--inception_checkpoint_file=/i/inception_v3.ckpt',
    '--train_dir=/m/train',
    '--train_inception=false',
    '--number_of_steps=7',
  ]
  assert _called(shell, project, 'fine_tune', **variables)[-1] == (
    '--number_of_steps=9'
  )
  assert _called(shell, project, 'caption a.jpg', **variables)[1:3] == [
    '--checkpoint_path=/m/train',
    '--vocab_file=my coco/word_counts.txt',
  ]
  # Set after sourcing, and each for itself.
  assert _called(
    shell,
    project,
    'VOCAB_FILE=/v; CHECKPOINT_PATH=/c/model.ckpt-5; caption a.jpg',
  )[1:3] == ['--checkpoint_path=/c/model.ckpt-5', '--vocab_file=/v']
  assert _called(shell, project, 'train', INCEPTION_CHECKPOINT='x.ckpt')[2] == (
    '--inception_checkpoint_file=x.ckpt'
  )


@pytest.mark.parametrize(
  'function',
  [
    'prepare',
    'get_inception',
    'get_model',
    'train',
    'fine_tune',
    'evaluate',
    'caption a.jpg',
    'tensorboard',
    'doctor',
  ],
)
def test_passes_flags_and_status_on(shell, project, function):
  result = _run(
    shell, project, f'{function} "--flag=two words" --other', STATUS='3'
  )
  assert result.returncode == 3
  assert result.stdout.splitlines()[-2:] == ['--flag=two words', '--other']


def _make(path, content=''):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)


def test_caption_takes_your_model_or_else_the_pretrained(shell, project):

  def captions(command='caption a.jpg', **variables):
    result = _run(shell, project, command, **variables)
    assert result.returncode == 0, result.stderr
    return result.stderr, result.stdout.splitlines()[1:3]

  data = project / 'data'
  assert captions() == (
    f'caption: no model in {data}/model/train yet; get_model gets one\n',
    [
      f'--checkpoint_path={data}/model/train',
      f'--vocab_file={data}/mscoco/word_counts.txt',
    ],
  )
  _make(data / 'pretrained' / 'checkpoint')
  pretrained = (
    f'caption: with the pretrained model in {data}/pretrained\n',
    [
      f'--checkpoint_path={data}/pretrained',
      f'--vocab_file={data}/pretrained/word_counts.txt',
    ],
  )
  assert captions() == pretrained
  assert captions(VOCAB_FILE='/v')[1] == [
    f'--checkpoint_path={data}/pretrained',
    '--vocab_file=/v',
  ]
  # Whoever says which is not told.
  assert captions(CHECKPOINT_PATH='/c') == (
    '',
    ['--checkpoint_path=/c', f'--vocab_file={data}/mscoco/word_counts.txt'],
  )
  assert captions('caption a.jpg --checkpoint_path=/c')[0] == ''
  _make(data / 'model' / 'train' / 'checkpoint')
  assert captions() == (
    f'caption: with your model in {data}/model/train\n',
    [
      f'--checkpoint_path={data}/model/train',
      f'--vocab_file={data}/mscoco/word_counts.txt',
    ],
  )
  assert captions(MODEL_DIR='/m') == pretrained


def test_get_model_takes_the_encoder_that_is_there(shell, project):
  data = project / 'data'
  stamp = data / 'inception' / 'inception_v3.json'
  _make(stamp, '{\n "fingerprint": "12ab",\n "source": "package"\n}')
  assert _called(shell, project, 'get_model')[1:] == [f'{data}/pretrained']
  manifest = data / 'flickr8k_coco' / 'model.json'
  _make(manifest, '{\n "encoder": {\n  "fingerprint": "12ab"\n }\n}')
  assert _called(shell, project, 'get_model --x')[1:] == [
    f'{data}/pretrained',
    f'--inception_dir={data}/inception',
    '--x',
  ]
  assert _called(shell, project, 'get_model', PRETRAINED_DIR='/p')[1] == '/p'
  _make(manifest, '{\n "encoder": {\n  "fingerprint": "34cd"\n }\n}')
  assert _called(shell, project, 'get_model')[1:] == [f'{data}/pretrained']


def test_caption_passes_files_on_as_they_are(shell, project):
  assert _called(
    shell, project, "caption 'a b.jpg' --beam_size=5 'c,d[1].jpg' 'e*.jpg' -"
  )[3:] == ['a b.jpg', '--beam_size=5', 'c,d[1].jpg', 'e*.jpg', '-']


@pytest.mark.parametrize(
  'arguments, message',
  [('', 'usage: caption FILE'), ('--beam_size=2', 'usage: caption FILE')],
)
def test_caption_refuses(shell, project, arguments, message):
  result = _run(shell, project, f'caption {arguments}')
  assert result.returncode == 2
  assert message in result.stderr
  assert not result.stdout


def test_builds_first(shell, buildable):
  result = _run(shell, buildable, 'train', build=True)
  assert result.returncode == 0
  built = result.stderr.splitlines()
  assert built[:4] == ['bazel', str(buildable), 'build', '-c']
  assert built[-1] == 'im2txt/train'
  assert result.stdout.splitlines()[0] == 'train'


def test_runs_nothing_that_was_not_built(shell, buildable):
  _run(shell, buildable, 'train', build=True)
  result = _run(shell, buildable, 'train', build=True, BUILD_FAILS='1')
  assert result.returncode == 37
  assert not result.stdout


def test_does_without_bazel_in_a_path_with_a_space(shell, project):
  python = project / '.venv' / 'bin' / 'python3'
  python.write_text(_PROGRAM.replace('exit', 'echo "$PYTHONPATH"\nexit'))
  for variables, path in (
    ({}, f'{project}'),
    ({'PYTHONPATH': '/p'}, f'{project}:/p'),
  ):
    result = _run(
      shell, project, 'caption "a b.jpg"', build=True, STATUS='3', **variables
    )
    assert result.returncode == 3
    assert result.stdout.splitlines() == [
      'python3',
      '-P',
      '-m',
      'im2txt.run_inference',
      f'--checkpoint_path={project}/data/model/train',
      f'--vocab_file={project}/data/mscoco/word_counts.txt',
      'a b.jpg',
      path,
    ]
    assert 'bazel' not in result.stderr.splitlines()
  python.unlink()
  result = _run(shell, project, 'train', build=True)
  assert result.returncode == 1 and not result.stdout
  assert result.stderr == (
    'train: nothing is installed yet: run scripts/setup.sh\n'
  )


def test_does_without_bazel_where_there_is_none(shell, buildable):
  (buildable / 'bin' / 'bazel').unlink()
  for name in ('dirname', 'sh', os.path.basename(shell[0])):
    (buildable / 'bin' / name).symlink_to(shutil.which(name))
  result = _run(
    shell, buildable, 'prepare --x', build=True, PATH=f'{buildable}/bin'
  )
  assert result.stdout.splitlines() == [
    'python3',
    '-P',
    '-m',
    'im2txt.download_and_preprocess_mscoco',
    f'{buildable}/data/mscoco',
    '--x',
  ], result.stderr


def test_takes_the_number_of_shards_that_is_there(shell, project):
  directory = project / 'own [2024] photos'
  variables = {'MSCOCO_DIR': str(directory)}
  _make(directory / 'train-00000-of-00008')
  _make(directory / 'train-00001-of-00008')
  _make(directory / 'val-00000-of-00001')
  for function in ('train', 'fine_tune'):
    assert _called(shell, project, function, **variables)[1] == (
      f'--input_file_pattern={directory}/train-?????-of-00008'
    )
  assert _called(shell, project, 'evaluate', **variables)[1] == (
    f'--input_file_pattern={directory}/val-?????-of-00001'
  )
  # Which of two is not for it to say.
  _make(directory / 'train-00000-of-00016')
  assert _called(shell, project, 'train', **variables)[1] == (
    f'--input_file_pattern={directory}/train-?????-of-00256'
  )


def test_leaves_the_shell_as_it_was(shell, project):
  state = 'pwd; echo "$-"; set | grep -E "MSCOCO|MODEL_DIR|VOCAB|CHECKPOINT"'
  result = _run(
    shell,
    project,
    f'{state}; caption a.jpg >/dev/null; train --x >/dev/null; {state}; true',
  )
  lines = result.stdout.splitlines()
  half = len(lines) // 2
  assert lines[0] == str(project.parent / 'elsewhere')
  assert lines[:half] == lines[half:]


@pytest.mark.parametrize('option', ['-e', '-u'])
def test_works_in_a_strict_shell(shell, project, option):
  strict = [*shell[:-1], option, '-c']
  assert _called(strict, project, 'evaluate; train')[0] == 'evaluate'
  assert _called(strict, project, 'get_model; caption a')[2] == 'run_inference'


def test_sourced_by_a_relative_path(shell, project):
  result = subprocess.run(
    [*shell, '. scripts/im2txt.sh; cd /; prepare'],
    cwd=project,
    env={
      'PATH': os.environ['PATH'],
      'IM2TXT_BIN_DIR': str(project / 'programs'),
    },
    capture_output=True,
    check=True,
    text=True,
  )
  assert result.stdout.splitlines()[1] == f'{project}/data/mscoco'


if __name__ == '__main__':
  sys.exit(pytest.main([__file__, '-v']))
