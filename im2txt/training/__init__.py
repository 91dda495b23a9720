# SPDX-License-Identifier: Apache-2.0
"""How the model learns: steps, optimizers, the loop."""
