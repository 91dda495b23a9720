#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Measures the paper's lessons on Flickr8k, each built upon the one before and
# with three seeds, and makes the tables and plots of docs/lessons.md: an encoder
# that is frozen, then fine-tuned, scheduled sampling, ensembles, the size of the
# beam, self-critical training. It takes some hours.
#
#   FLICKR8K_DIR=~/flickr8k scripts/lessons.sh
#   scripts/lessons.sh --dry_run           prints the commands, runs none
#   scripts/lessons.sh 'joint-*' tables    these steps only, such as one per core
#
# FLICKR8K_DIR (default: data/flickr8k) has Flickr8k.token.txt,
# Flickr_8k.trainImages.txt, Flickr_8k.devImages.txt and the photos in images,
# Images or Flicker8k_Dataset. Everything is written to LESSONS_DIR (default:
# data/lessons). Interrupted, the script goes on where it was by the same command.
#
# Sizes, with the values of docs/lessons.md:
#
#   SEEDS="1 2 3"         a training each
#   FROZEN_STEPS=2400     of 32 captions, the encoder frozen
#   FROZEN_VIEWS=2        distorted views of each photo, beside itself
#   JOINT_STEPS=200       of 10 photos with 5 captions, two blocks trained too
#   JOINT_VIEWS=0         as above, 1 GB each; 0 trains on the photos themselves
#   CRITICAL_STEPS=100    of 20 photos with 5 sampled captions
#   BEAMS=1,3,20          sizes of the beam; two of the rows have 3 only
#   IM2TXT_BIN_DIR        programs built already; nothing is built then

set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
data="$(realpath -m "${FLICKR8K_DIR:-${root}/data/flickr8k}")"
dir="$(realpath -m "${LESSONS_DIR:-${root}/data/lessons}")"
inception="$(realpath -m "${INCEPTION_DIR:-${root}/data/inception}")"
read -ra seeds <<< "${SEEDS:-1 2 3}"
frozen_steps="${FROZEN_STEPS:-2400}"
joint_steps="${JOINT_STEPS:-200}"
critical_steps="${CRITICAL_STEPS:-100}"
beams="${BEAMS:-1,3,20}"
joint_end=$((frozen_steps + joint_steps))
cd "${root}"

die() { echo "lessons: $*" >&2; exit 1; }

mode=run
only=()
for argument in "$@"; do
  case "${argument}" in
    --dry_run) mode=dry_run ;;
    -*) die "unknown flag ${argument}: there is only --dry_run" ;;
    *) only+=("${argument}") ;;
  esac
done

# is_wanted STEP: whether the command line names it, or none.
is_wanted() {
  local pattern
  [ "${#only[@]}" -gt 0 ] || return 0
  for pattern in "${only[@]}"; do
    # shellcheck disable=SC2053
    if [[ "$1" == ${pattern} ]]; then
      return 0
    fi
  done
  return 1
}

images=''
for name in images Images Flicker8k_Dataset; do
  [ ! -d "${data}/${name}" ] || images="${data}/${name}"
done
if [ ! -e "${data}/Flickr8k.token.txt" ] || [ -z "${images}" ]; then
  die "no Flickr8k in ${data}: ask for it at" \
    "https://forms.illinois.edu/sec/1713398 and unpack texts and photos" \
    "there, or set FLICKR8K_DIR"
fi

bin="${IM2TXT_BIN_DIR:-}"
if [ -z "${bin}" ]; then
  bin="${root}/bazel-bin/im2txt"
  if [ "${mode}" = run ]; then
    scripts/setup.sh
    bazel build -c opt im2txt/...
  fi
fi

# step NAME COMMAND...: runs a command unless it is done. What is done has a
# stamp, which holds the command: other sizes do not pass for these.
number=0
total=0
step() {
  local name="$1" stamp="${dir}/done/$1" command
  shift
  is_wanted "${name}" || return 0
  command="$(printf '%q ' "$@")"
  number=$((number + 1))
  if [ "${mode}" = count ]; then
    return
  fi
  if [ "${mode}" = dry_run ]; then
    echo "[${number}/${total}] ${name}: ${command}"
    return
  fi
  if [ -e "${stamp}" ]; then
    [ "$(cat "${stamp}")" = "${command}" ] ||
      die "${name} is done with other settings (${stamp}): set another" \
        "LESSONS_DIR, or remove this file to do it again"
    echo "=== [${number}/${total}] ${name}: done before"
    return
  fi
  echo "=== [${number}/${total}] ${name} ($(date +%H:%M))"
  local begin="${SECONDS}"
  "$@"
  echo "${command}" > "${stamp}.part"
  mv "${stamp}.part" "${stamp}"
  echo "=== [${number}/${total}] ${name}: $((SECONDS - begin)) s," \
    "$((SECONDS / 60)) min since the start"
}

# What all trainings share. The network of bfloat16 products is the same.
train_on() {
  local name="$1"
  shift
  "${bin}/train" --train_dir="${dir}/${name}" \
    --input_file_pattern="${dir}/shards/train-?????-of-00008" \
    --feature_precision=bfloat16 --precision=bfloat16 \
    --num_examples_per_epoch=30000 --log_every_n_steps=20 "$@"
}

# go_on NAME FROM STEP FLAG...: trains further, with an optimizer that starts
# from scratch, in a directory of its own.
go_on() {
  local name="$1" from="${dir}/$2" checkpoint="model.ckpt-$3"
  shift 3
  if [ ! -d "${dir}/${name}" ]; then
    rm -rf "${dir}/${name}.part"
    mkdir "${dir}/${name}.part"
    cp "${from}"/*.json "${from}/${checkpoint}".* "${dir}/${name}.part"
    echo "model_checkpoint_path: \"${checkpoint}\"" \
      > "${dir}/${name}.part/checkpoint"
    mv "${dir}/${name}.part" "${dir}/${name}"
  fi
  train_on "${name}" "$@"
}

# score NAME BEAMS CHECKPOINT...: several are an ensemble.
score() {
  local name="$1" beams="$2" paths
  shift 2
  paths="$(printf ",${dir}/%s" "$@")"
  step "score-${name}" "${bin}/sweep" --checkpoint_path="${paths:1}" \
    --vocab_file="${dir}/shards/word_counts.txt" \
    --input_file_pattern="${dir}/shards/val-?????-of-00002" \
    --output_dir="${dir}/scores/${name}" \
    --feature_dir="${dir}/scores/features" --keep_captions \
    --precision=bfloat16 --beam_sizes="${beams}" --length_normalization_factors=0 \
    --metrics="${metrics}"
}

metrics=bleu_1,bleu_4,rouge_l,cider,distinct_captions,vocabulary_used
if command -v java > /dev/null; then
  metrics+=,meteor
fi

features=(--feature_cache_dir="${dir}/features"
  --feature_views="${FROZEN_VIEWS:-2}" --feature_undistorted)
second_phase=(--batch_size=50 --captions_per_image=5 --optimizer=Adam
  --initial_learning_rate=2e-4 --learning_rate_schedule=cosine
  --schedule_start_step="${frozen_steps}"
  --warmup_steps="$((joint_steps / 10))" --cosine_decay_steps="${joint_steps}"
  --number_of_steps="${joint_end}")
# The inputs of these blocks are the same for all seeds, and cached.
top_blocks=(--train_inception --train_inception_from=Mixed_7b
  --train_inception_learning_rate=1.5e-4 --feature_cache_dir="${dir}/maps"
  --feature_views="${JOINT_VIEWS:-0}")

plan() {
  step shards "${bin}/build_caption_data" \
    --captions_file="${data}/Flickr8k.token.txt" \
    --train_list="${data}/Flickr_8k.trainImages.txt" \
    --val_list="${data}/Flickr_8k.devImages.txt" --image_dir="${images}" \
    --output_dir="${dir}/shards" --train_shards=8 --val_shards=2 \
    --word_counts_output_file="${dir}/shards/word_counts.txt"
  step inception "${bin}/get_inception" "${inception}" --source=package
  for seed in "${seeds[@]}"; do
    step "frozen-${seed}" train_on "frozen-${seed}" "${features[@]}" \
      --inception_checkpoint_file="${inception}/inception_v3.ckpt" \
      --random_seed="${seed}" --batch_size=32 --optimizer=SGD \
      --initial_learning_rate=2 --learning_rate_schedule=cosine \
      --cosine_decay_steps="${frozen_steps}" \
      --number_of_steps="${frozen_steps}" --moving_average_decay=0.999 \
      --lstm_dropout_keep_prob=0.65 --noallow_unknown_word
  done
  for seed in "${seeds[@]}"; do
    step "joint-${seed}" go_on "joint-${seed}" "frozen-${seed}" \
      "${frozen_steps}" "${second_phase[@]}" "${top_blocks[@]}" \
      --random_seed="${seed}"
  done
  # To tell what the blocks do from what more steps do.
  for seed in "${seeds[@]}"; do
    step "longer-${seed}" go_on "longer-${seed}" "frozen-${seed}" \
      "${frozen_steps}" "${second_phase[@]}" "${features[@]}" \
      --random_seed="${seed}"
  done
  for seed in "${seeds[@]}"; do
    step "sampled-${seed}" go_on "sampled-${seed}" "frozen-${seed}" \
      "${frozen_steps}" "${second_phase[@]}" "${top_blocks[@]}" \
      --scheduled_sampling=linear \
      --scheduled_sampling_start_step="${frozen_steps}" \
      --scheduled_sampling_half_steps="${joint_steps}" --random_seed="${seed}"
  done
  for seed in "${seeds[@]}"; do
    for kind in frozen joint sampled; do
      score "${kind}-${seed}" "${beams}" "${kind}-${seed}"
    done
    score "longer-${seed}" 3 "longer-${seed}"
  done
  # All but one of them, so that ensembles have a spread too; and all.
  for out in "${seeds[@]}"; do
    members=()
    for seed in "${seeds[@]}"; do
      [ "${seed}" = "${out}" ] || members+=("sampled-${seed}")
    done
    score "ensemble-without-${out}" "${beams}" "${members[@]}"
  done
  score ensemble-all "${beams}" "${seeds[@]/#/sampled-}"
  # From the frozen encoder: it would have to see all photos again with each of
  # the encoders that were trained.
  for seed in "${seeds[@]}"; do
    step "critical-${seed}" go_on "critical-${seed}" "longer-${seed}" \
      "${joint_end}" "${features[@]}" --self_critical --samples_per_image=5 \
      --batch_size=100 --optimizer=Adam --initial_learning_rate=2e-5 \
      --learning_rate_schedule=staircase --num_epochs_per_decay=0 \
      --number_of_steps="$((joint_end + critical_steps))" --random_seed="${seed}"
    score "critical-${seed}" 3 "critical-${seed}"
  done
}

asked="${mode}"
mode=count
plan
total="${number}"
number=0
mode="${asked}"
[ "${mode}" = dry_run ] || mkdir -p "${dir}/done" "${dir}/scores"
plan
if [ "${mode}" = run ] && is_wanted tables; then
  .venv/bin/python3 -m im2txt.evaluation.lessons --directory="${dir}"
fi
