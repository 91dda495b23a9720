# SPDX-License-Identifier: Apache-2.0
"""The rooms of the house: which part may import which. Arrows go down.

A room is a folder, or one of the two files configuration.py and
show_and_tell_model.py. BUILD makes a target of each, so a test sees only what
its room may import; rooms_test.py compares this file with the imports.
"""

# Room -> the rooms that it imports.
ROOMS = {
    "benchmarks": ["checkpoints", "configuration", "data", "inference_utils", "ops", "runtime", "sample", "show_and_tell_model", "text", "training"],
    "checkpoints": ["configuration", "runtime", "text"],
    "configuration": ["runtime"],
    "data": ["runtime", "text"],
    "evaluation": ["data", "inference_utils", "metrics", "runtime", "visualization"],
    "inference_utils": ["checkpoints", "configuration", "data", "ops", "runtime", "show_and_tell_model", "text"],
    "input_pipeline": ["checkpoints", "data", "ops", "runtime"],
    "metrics": [],
    "ops": ["data"],
    "pretrained": ["checkpoints", "configuration", "data", "ops", "runtime", "show_and_tell_model", "text"],
    "runtime": [],
    "sample": ["runtime"],
    "show_and_tell_model": ["ops"],
    "stress": ["checkpoints", "configuration", "data", "inference_utils", "input_pipeline", "ops", "runtime", "text"],
    "text": ["runtime"],
    "training": ["checkpoints", "configuration", "input_pipeline", "ops", "runtime", "show_and_tell_model", "text"],
    "visualization": ["data"],
}

# Program, the file of its name -> the rooms and programs that it imports.
PROGRAMS = {
    "benchmark": ["benchmarks", "runtime"],
    "build_caption_data": ["data", "runtime"],
    "build_mscoco_data": ["data", "runtime"],
    "contact_sheet": ["data", "runtime", "visualization"],
    "download_and_preprocess_mscoco": ["build_mscoco_data", "data", "runtime"],
    "evaluate": ["checkpoints", "configuration", "data", "evaluation", "inference_utils", "input_pipeline", "metrics", "runtime", "show_and_tell_model", "text", "visualization"],
    "extend_checkpoint": ["checkpoints", "configuration", "ops", "runtime", "text"],
    "get_inception": ["checkpoints", "pretrained", "runtime"],
    "get_model": ["pretrained", "runtime"],
    "make_sample_data": ["runtime", "sample"],
    "package_model": ["pretrained", "runtime"],
    "plot": ["runtime"],
    "run_inference": ["inference_utils", "runtime"],
    "score": ["checkpoints", "data", "evaluation", "inference_utils", "metrics", "runtime", "text"],
    "train": ["configuration", "data", "runtime", "text", "training"],
    "validate_data": ["data", "runtime"],
}

# Test -> the programs that it starts as processes.
STARTS = {
}

# Tests that take minutes on two busy cores.
LARGE_TESTS = [
]
