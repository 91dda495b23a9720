#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The whole main job in about ten minutes, on a sample that needs no download:
# installs what is missing, builds, paints 2,200 pictures with captions, and
# runs prepare, get_inception, train, evaluate and run_inference on them.
# Interrupted, it goes on where it was when started again.
#
#   scripts/quickstart.sh
#   SAMPLE_DIR=/tmp/sample scripts/quickstart.sh    elsewhere than data/sample

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
sample="$(realpath -m "${SAMPLE_DIR:-${root}/data/sample}")"
cd "${root}"

step() { printf '\n=== %s\n' "$*"; }

step 'Installing what is missing'
scripts/setup.sh

step 'Building'
bazel build -c opt im2txt/...

step 'Painting the sample'
bazel-bin/im2txt/make_sample_data "${sample}/source"

# From here on it is what one does for MSCOCO, with other places and sizes.
source scripts/im2txt.sh
unset VOCAB_FILE INCEPTION_CHECKPOINT CHECKPOINT_PATH
export IM2TXT_BIN_DIR="${root}/bazel-bin/im2txt"
export MSCOCO_DIR="${sample}/mscoco"
export INCEPTION_DIR="${sample}/inception"
export MODEL_DIR="${sample}/model"
export NUMBER_OF_STEPS=3500

step 'prepare: shards and vocabulary'
prepare --base_url="file://${sample}/source" --unpack_images

step 'get_inception: a checkpoint of Inception v3, an untrained one here'
get_inception --url="file://${sample}/source/inception_v3_untrained.tar.gz"

step "train: ${NUMBER_OF_STEPS} steps on a frozen Inception v3"
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

step 'caption: some pictures that it was not trained on'
pictures="${MSCOCO_DIR}/raw-data/val2014"
caption "${pictures}/COCO_val2014_00000000219?.jpg"

step 'contact_sheet'
"${IM2TXT_BIN_DIR}/contact_sheet" \
  --annotations_file="${MSCOCO_DIR}/raw-data/annotations/captions_val2014.json" \
  --image_dir="${pictures}" --results_file="${sample}/results.json" \
  --output_file="${sample}/contact_sheet.png"

cat <<EOF

=== Done. The same for photos, with MSCOCO (20 GB to download) and the
published Inception v3:

  source scripts/im2txt.sh
  prepare
  get_inception
  train               # and in a second terminal: evaluate
  fine_tune
  caption photo.jpg

To caption a picture with the sample's model:

  export MSCOCO_DIR=${MSCOCO_DIR} MODEL_DIR=${MODEL_DIR}
  source scripts/im2txt.sh
  caption FILE...
EOF
