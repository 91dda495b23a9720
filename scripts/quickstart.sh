#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing, builds, gets the trained model and captions twelve
# photos with it; then trains a small model of its own on 2,200 painted pictures
# with prepare, train, evaluate and score, as one does on MSCOCO. Downloads the
# encoder, 81 MB. Interrupted, it goes on where it was when started again.
#
#   scripts/quickstart.sh
#   SAMPLE_DIR=/tmp/sample scripts/quickstart.sh    elsewhere than data/sample

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
sample="$(realpath -m "${SAMPLE_DIR:-${root}/data/sample}")"
cd "${root}"

if [[ "${root}" == *' '* ]]; then
  echo "quickstart: Bazel takes no path with a space: move the project" \
    "elsewhere than ${root}" >&2
  exit 1
fi

step() { printf '\n=== %s\n' "$*"; }

step 'Installing what is missing'
scripts/setup.sh

step 'Building'
bazel build -c opt im2txt/...

source scripts/im2txt.sh
unset VOCAB_FILE INCEPTION_CHECKPOINT CHECKPOINT_PATH INCEPTION_DIR \
  PRETRAINED_DIR INCEPTION_URL
export IM2TXT_BIN_DIR="${root}/bazel-bin/im2txt"
pretrained="${root}/data/pretrained"

step 'get_inception: the encoder'
# That which the trained model needs, unless there is one already.
inception="${root}/data/inception/inception_v3.ckpt"
if [[ -e "${inception}" || -e "${inception}.index" ]]; then
  get_inception
else
  get_inception --source=package
fi

step 'get_model: the decoder, joined to the encoder'
get_model

step 'caption: twelve photos'
photos=("${root}"/data/photos/*.jpg)
captioned="${root}/data/photos_captioned"
export CHECKPOINT_PATH="${pretrained}"
export VOCAB_FILE="${pretrained}/word_counts.txt"
caption "${photos[@]}"

step 'contact_sheet: the photos with their captions'
caption --output_format=json "${photos[@]}" > "${captioned}.jsonl"
"${IM2TXT_BIN_DIR}/contact_sheet" --captions_file="${captioned}.jsonl" \
  --columns=4 --output_file="${captioned}.png"
unset CHECKPOINT_PATH VOCAB_FILE

# From here on it is what one does for MSCOCO, with other places and sizes.
step 'Painting the sample'
"${IM2TXT_BIN_DIR}/make_sample_data" "${sample}/source"

export MSCOCO_DIR="${sample}/mscoco"
export MODEL_DIR="${sample}/model"
export NUMBER_OF_STEPS=3500

step 'prepare: shards and vocabulary'
prepare --base_url="file://${sample}/source" --unpack_images

step "train: ${NUMBER_OF_STEPS} steps on the frozen encoder"
# A small model for a small world; an epoch has 10,250 captions.
train --feature_cache_dir="${sample}/features" --feature_views=0 \
  --log_every_n_steps=100 --random_seed=1 \
  --vocab_size=100 --embedding_size=256 --num_lstm_units=256 \
  --num_examples_per_epoch=10250 --num_epochs_per_decay=6

step 'evaluate: perplexity of the validation captions'
evaluate --run_once --min_global_step=0

step 'score: captions of the 100 test pictures against those they came with'
"${IM2TXT_BIN_DIR}/score" --checkpoint_path="${MODEL_DIR}/train" \
  --vocab_file="${MSCOCO_DIR}/word_counts.txt" \
  --input_file_pattern="${MSCOCO_DIR}/test-?????-of-00008" \
  --results_output="${sample}/results.json"

step 'contact_sheet: some of them'
"${IM2TXT_BIN_DIR}/contact_sheet" \
  --annotations_file="${MSCOCO_DIR}/raw-data/annotations/captions_val2014.json" \
  --image_dir="${MSCOCO_DIR}/raw-data/val2014" \
  --results_file="${sample}/results.json" \
  --output_file="${sample}/contact_sheet.png"

cat <<EOF

=== Done. The photos with their captions are in ${captioned}.png

To caption your own photos with the same model:

  source scripts/im2txt.sh
  caption my_photo.jpg

To train it further on your own photos: docs/own_photos.md. They come
with a CSV file of the columns file, caption and split (train, val or test):

  file,caption,split
  1.jpg,"A red kite, high above the beach.",train

To train on MSCOCO (20 GB to download):

  source scripts/im2txt.sh
  prepare
  train               # and in a second terminal: evaluate
  fine_tune
EOF
