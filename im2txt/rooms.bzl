# SPDX-License-Identifier: Apache-2.0
"""The rooms of the house: which part imports which. Arrows go down.

A room is a folder, or one of the two files configuration.py and
show_and_tell_model.py. BUILD makes a target of each, so that a test finds only
what its room may import; rooms_test.py compares this file with the imports.
"""

# Room -> the rooms that it imports.
ROOMS = {
    "benchmarks": [
        "checkpoints",
        "configuration",
        "data",
        "encoders",
        "inference_utils",
        "input_pipeline",
        "metrics",
        "ops",
        "runtime",
        "sample",
        "show_and_tell_model",
        "text",
        "training",
    ],
    "checkpoints": [
        "configuration",
        "runtime",
        "text",
    ],
    "configuration": [
        "runtime",
    ],
    "data": [
        "runtime",
        "text",
    ],
    "diagnosis": [
        "checkpoints",
        "configuration",
        "data",
        "inference_utils",
        "text",
        "visualization",
    ],
    "encoders": [
        "ops",
        "runtime",
    ],
    "evaluation": [
        "checkpoints",
        "configuration",
        "data",
        "inference_utils",
        "input_pipeline",
        "metrics",
        "runtime",
        "show_and_tell_model",
        "text",
        "visualization",
    ],
    "export": [
        "encoders",
        "inference_utils",
        "ops",
        "runtime",
        "text",
    ],
    "folders": [
        "checkpoints",
        "data",
        "inference_utils",
        "runtime",
        "text",
    ],
    "inference_utils": [
        "checkpoints",
        "configuration",
        "data",
        "encoders",
        "ops",
        "runtime",
        "show_and_tell_model",
        "text",
    ],
    "input_pipeline": [
        "checkpoints",
        "data",
        "ops",
        "runtime",
    ],
    "metrics": [],
    "ops": [
        "data",
    ],
    "pretrained": [
        "checkpoints",
        "configuration",
        "data",
        "ops",
        "runtime",
        "show_and_tell_model",
        "text",
    ],
    "runtime": [],
    "sample": [
        "runtime",
    ],
    "serving": [
        "data",
        "inference_utils",
        "runtime",
    ],
    "show_and_tell_model": [
        "configuration",
        "ops",
    ],
    "stress": [
        "checkpoints",
        "configuration",
        "data",
        "inference_utils",
        "input_pipeline",
        "ops",
        "runtime",
        "show_and_tell_model",
        "text",
        "visualization",
    ],
    "text": [
        "runtime",
    ],
    "training": [
        "checkpoints",
        "configuration",
        "data",
        "input_pipeline",
        "metrics",
        "ops",
        "runtime",
        "show_and_tell_model",
        "text",
    ],
    "visualization": [
        "data",
    ],
}

# Program, the file of its name -> the rooms and programs that it imports.
PROGRAMS = {
    "average_checkpoints": [
        "checkpoints",
        "runtime",
    ],
    "benchmark": [
        "benchmarks",
        "data",
        "inference_utils",
        "metrics",
        "runtime",
    ],
    "build_caption_data": [
        "data",
        "runtime",
        "text",
    ],
    "build_feature_cache": [
        "runtime",
        "training",
    ],
    "build_mscoco_data": [
        "data",
        "runtime",
    ],
    "calibrate_encoder": [
        "checkpoints",
        "data",
        "inference_utils",
        "runtime",
    ],
    "contact_sheet": [
        "data",
        "runtime",
        "visualization",
    ],
    "doctor": [
        "diagnosis",
        "runtime",
    ],
    "download_and_preprocess_mscoco": [
        "build_mscoco_data",
        "data",
        "runtime",
        "text",
    ],
    "evaluate": [
        "evaluation",
        "inference_utils",
        "runtime",
    ],
    "export_model": [
        "encoders",
        "export",
        "inference_utils",
        "runtime",
    ],
    "extend_checkpoint": [
        "runtime",
        "training",
    ],
    "fit_confidence": [
        "checkpoints",
        "data",
        "evaluation",
        "inference_utils",
        "runtime",
        "text",
    ],
    "get_inception": [
        "checkpoints",
        "pretrained",
        "runtime",
    ],
    "get_model": [
        "pretrained",
        "runtime",
    ],
    "make_sample_data": [
        "runtime",
        "sample",
    ],
    "nearest_words": [
        "checkpoints",
        "inference_utils",
        "runtime",
    ],
    "package_model": [
        "pretrained",
        "runtime",
    ],
    "plot": [
        "runtime",
        "visualization",
    ],
    "run_inference": [
        "checkpoints",
        "folders",
        "inference_utils",
        "runtime",
    ],
    "score": [
        "evaluation",
        "inference_utils",
        "metrics",
        "runtime",
    ],
    "search": [
        "folders",
        "inference_utils",
        "runtime",
    ],
    "serve": [
        "inference_utils",
        "runtime",
        "serving",
    ],
    "sweep": [
        "data",
        "evaluation",
        "inference_utils",
        "runtime",
        "text",
    ],
    "train": [
        "configuration",
        "data",
        "runtime",
        "text",
        "training",
    ],
    "validate_data": [
        "data",
        "runtime",
    ],
}

# What tests share, and the rooms that it imports.
TESTING = [
    "checkpoints",
    "configuration",
    "data",
    "pretrained",
    "runtime",
    "show_and_tell_model",
    "text",
]

# Test -> what it imports, or starts as a process, beside its own room; "*" is all programs.
TESTS = {
    "benchmark_test": [
        "evaluate",
        "score",
        "train",
    ],
    "benchmarks/suite_test": [
        "build_mscoco_data",
        "evaluate",
        "run_inference",
        "train",
    ],
    "calibrate_encoder_test": [
        "export_model",
        "run_inference",
    ],
    "data/download_test": [
        "download_and_preprocess_mscoco",
    ],
    "data/mscoco_test": [
        "build_mscoco_data",
    ],
    "data/validation_test": [
        "validate_data",
    ],
    "diagnosis/doctor_test": [
        "doctor",
    ],
    "evaluation/devices_test": [
        "evaluate",
        "score",
        "stress",
    ],
    "evaluation/beam_sweep_test": [
        "sweep",
    ],
    "export_model_test": [
        "run_inference",
    ],
    "extend_checkpoint_test": [
        "train",
    ],
    "fit_confidence_test": [
        "run_inference",
    ],
    "get_model_test": [
        "package_model",
        "run_inference",
        "train",
    ],
    "make_sample_data_test": [
        "download_and_preprocess_mscoco",
    ],
    "runtime/numpy_files_test": [
        "*",
    ],
    "runtime/quiet_tensorflow_test": [
        "*",
    ],
    "serve_test": [
        "run_inference",
    ],
    "serving/load_test": [
        "serve",
    ],
    "stress/faults_test": [
        "*",
    ],
    "stress/fuzz_test": [
        "*",
    ],
    "stress/power_cut_test": [
        "train",
    ],
    "train_test": [
        "evaluate",
    ],
    "training/distribution_test": [
        "stress",
        "train",
    ],
}

# Targets of tests that take more than a minute on two idle cores.
LARGE_TESTS = [
    "evaluate_test",
    "inference_utils_test",
    "runtime_test",
    "stress_test",
    "train_test",
    "training_test",
]
