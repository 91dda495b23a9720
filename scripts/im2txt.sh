# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The programs as shell functions. Source this in bash or zsh, anywhere:
#
#   source scripts/im2txt.sh
#   prepare           # download MSCOCO and write its shards
#   get_inception     # download the Inception v3 checkpoint
#   get_model         # a trained model: its encoder is a download
#   train             # the caption model, Inception frozen
#   fine_tune         # both together, from where train ended
#   evaluate          # each new checkpoint, on the validation shards
#   caption FILE...   # photos, with the latest checkpoint of your training,
#                     # or with the model of get_model if there is none
#   search photos/    # index them, or what is new of them
#   search --text='a dog on the beach'
#   serve             # captions over HTTP, with the same model
#   tensorboard       # curves of train and evaluate
#   doctor            # what is wrong with the training, and the remedy
#
# Further flags go to the program: train --number_of_steps=1000. Each function
# builds its program first and ends with its exit status; where Bazel cannot be
# used, as in a path with a space, .venv runs the program as it is. Where things
# are, unless these variables say otherwise when a function is called:
#
#   MSCOCO_DIR            data/mscoco
#   VOCAB_FILE            $MSCOCO_DIR/word_counts.txt
#   INCEPTION_DIR         data/inception
#   INCEPTION_CHECKPOINT  $INCEPTION_DIR/inception_v3.ckpt
#   MODEL_DIR             data/model
#   CHECKPOINT_PATH       $MODEL_DIR/train
#   PRETRAINED_DIR        data/pretrained, of get_model
#   INDEX_FILE            data/photos.index, of search
#   NUMBER_OF_STEPS       1000000, for train
#   FINE_TUNE_STEPS       3000000, for fine_tune, those of train included
#   IM2TXT_BIN_DIR        programs built already; nothing is built then
#
# The defaults are in the project, whatever directory you are in; a relative
# path of your own is relative to where you are.

if [ -n "${ZSH_VERSION:-}" ]; then
  # Only zsh can parse its own name for the file being sourced.
  eval '_im2txt_root="${${(%):-%x}:A:h:h}"'
else
  _im2txt_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
fi

# Every function below is a subshell, so nothing that it sets stays behind.

_im2txt_defaults() {
  : "${MSCOCO_DIR:=${_im2txt_root}/data/mscoco}"
  : "${VOCAB_FILE:=${MSCOCO_DIR}/word_counts.txt}"
  : "${INCEPTION_DIR:=${_im2txt_root}/data/inception}"
  : "${INCEPTION_CHECKPOINT:=${INCEPTION_DIR}/inception_v3.ckpt}"
  : "${MODEL_DIR:=${_im2txt_root}/data/model}"
  : "${CHECKPOINT_PATH:=${MODEL_DIR}/train}"
  : "${PRETRAINED_DIR:=${_im2txt_root}/data/pretrained}"
  : "${INDEX_FILE:=${_im2txt_root}/data/photos.index}"
}

# _im2txt_choose_model FUNCTION ARGUMENT...: what caption, search and serve take
# where neither a variable nor a flag says which checkpoint.
_im2txt_choose_model() {
  local name="$1" checkpoint="${CHECKPOINT_PATH:-}"
  local vocabulary="${VOCAB_FILE:-}"
  _im2txt_defaults
  if [[ -n "${checkpoint}" || " $*" == *' --checkpoint_path'* ]]; then
    return 0
  fi
  if [ -e "${CHECKPOINT_PATH}/checkpoint" ]; then
    echo "${name}: with your model in ${CHECKPOINT_PATH}" >&2
  elif [ -e "${PRETRAINED_DIR}/checkpoint" ]; then
    CHECKPOINT_PATH="${PRETRAINED_DIR}"
    VOCAB_FILE="${vocabulary:-${PRETRAINED_DIR}/word_counts.txt}"
    echo "${name}: with the pretrained model in ${PRETRAINED_DIR}" >&2
  else
    # Not refused: a checkpoint can do without that file.
    echo "${name}: no model in ${CHECKPOINT_PATH} yet; get_model gets one" >&2
  fi
}

# _im2txt_shards PART NUMBER: prints the pattern of the shards of a part; those
# of another number are taken where there are no others.
_im2txt_shards() {
  local number
  number="$(find "${MSCOCO_DIR}" -maxdepth 1 -name "$1-00000-of-?????" \
    2>/dev/null | sed 's/.*-of-//')"
  case "${number}" in
    [0-9][0-9][0-9][0-9][0-9]) ;;
    *) number="$(printf '%05d' "$2")" ;;
  esac
  echo "${MSCOCO_DIR}/$1-?????-of-${number}"
}

# Bazel refuses paths with a space.
_im2txt_can_build() {
  case "${_im2txt_root}" in
    *' '*) return 1 ;;
  esac
  command -v bazel >/dev/null
}

# _im2txt_run PROGRAM ARGUMENT...: builds the program and becomes it.
_im2txt_run() {
  local program="$1" bin="${IM2TXT_BIN_DIR:-}"
  shift
  if [ -z "${bin}" ] && ! _im2txt_can_build; then
    if ! [ -x "${_im2txt_root}/.venv/bin/python3" ]; then
      echo "${program}: nothing is installed yet: run scripts/setup.sh" >&2
      exit 1
    fi
    # -P: modules of the current directory are not the project's.
    PYTHONPATH="${_im2txt_root}${PYTHONPATH:+:${PYTHONPATH}}" \
      exec "${_im2txt_root}/.venv/bin/python3" -P -m "im2txt.${program}" "$@"
  fi
  if [ -z "${bin}" ]; then
    bin="${_im2txt_root}/bazel-bin/im2txt"
    (cd "${_im2txt_root}" &&
      bazel build -c opt --noshow_progress --ui_event_filters=-info \
        "im2txt/${program}") || exit
  fi
  exec "${bin}/${program}" "$@"
}

prepare() (
  _im2txt_defaults
  _im2txt_run download_and_preprocess_mscoco "${MSCOCO_DIR}" "$@"
)

get_inception() (
  _im2txt_defaults
  _im2txt_run get_inception "${INCEPTION_DIR}" "$@"
)

get_model() (
  _im2txt_defaults
  # The encoder is there already if get_inception got the one that it needs.
  fingerprint="$(grep -os '"fingerprint": "[0-9a-f]*"' \
    "${_im2txt_root}/data/flickr8k_coco/model.json" || true)"
  if [ -n "${fingerprint}" ] &&
    grep -qsF "${fingerprint}" "${INCEPTION_DIR}/inception_v3.json"; then
    set -- --inception_dir="${INCEPTION_DIR}" "$@"
  fi
  _im2txt_run get_model "${PRETRAINED_DIR}" "$@"
)

train() (
  _im2txt_defaults
  _im2txt_run train \
    --input_file_pattern="$(_im2txt_shards train 256)" \
    --inception_checkpoint_file="${INCEPTION_CHECKPOINT}" \
    --train_dir="${MODEL_DIR}/train" \
    --train_inception=false \
    --number_of_steps="${NUMBER_OF_STEPS:-1000000}" \
    "$@"
)

fine_tune() (
  _im2txt_defaults
  _im2txt_run train \
    --input_file_pattern="$(_im2txt_shards train 256)" \
    --train_dir="${MODEL_DIR}/train" \
    --train_inception=true \
    --number_of_steps="${FINE_TUNE_STEPS:-3000000}" \
    "$@"
)

evaluate() (
  _im2txt_defaults
  _im2txt_run evaluate \
    --input_file_pattern="$(_im2txt_shards val 4)" \
    --checkpoint_dir="${MODEL_DIR}/train" \
    --eval_dir="${MODEL_DIR}/eval" \
    --vocab_file="${VOCAB_FILE}" \
    "$@"
)

doctor() (
  _im2txt_defaults
  _im2txt_run doctor \
    --train_dir="${MODEL_DIR}/train" \
    --input_file_pattern="$(_im2txt_shards train 256)" \
    --vocab_file="${VOCAB_FILE}" \
    "$@"
)

# caption FILE... [--flag=value...]
caption() (
  _im2txt_choose_model caption "$@"
  files=''
  for argument in "$@"; do
    case "${argument}" in
      --*) ;;
      *) files=some ;;
    esac
  done
  if [ -z "${files}" ]; then
    echo 'usage: caption FILE... [--flag=value...]' >&2
    exit 2
  fi
  _im2txt_run run_inference \
    --checkpoint_path="${CHECKPOINT_PATH}" \
    --vocab_file="${VOCAB_FILE}" \
    "$@"
)

# search [PHOTO_OR_DIRECTORY...] [--text=...] [--image=...]
search() (
  _im2txt_choose_model search "$@"
  _im2txt_run search \
    --checkpoint_path="${CHECKPOINT_PATH}" \
    --vocab_file="${VOCAB_FILE}" \
    --index_file="${INDEX_FILE}" \
    "$@"
)

serve() (
  _im2txt_choose_model serve "$@"
  _im2txt_run serve \
    --checkpoint_path="${CHECKPOINT_PATH}" \
    --vocab_file="${VOCAB_FILE}" \
    "$@"
)

tensorboard() (
  _im2txt_defaults
  # The module: a script of a .venv that was moved does not find its Python.
  # im2txt first, which keeps TensorFlow quiet while it is imported.
  PYTHONPATH="${_im2txt_root}${PYTHONPATH:+:${PYTHONPATH}}" \
    exec "${_im2txt_root}/.venv/bin/python3" -c \
    'import im2txt; from tensorboard import main; main.run_main()' \
    --logdir="${MODEL_DIR}" "$@"
)
