# SPDX-License-Identifier: Apache-2.0
"""What every program needs: start-up, errors, files, locks, progress."""
