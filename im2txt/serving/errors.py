# SPDX-License-Identifier: Apache-2.0
"""Why a request, or an image of it, has no captions."""


class RequestError(Exception):
  """A request, or an image, that is answered with a status and a reason.

  Attributes:
    status: int, of HTTP.
    reason: str, one line for the user.
    retry_after: seconds until it is worth trying again, or None.
  """

  def __init__(
    self, status: int, reason: str, retry_after: int | None = None
  ) -> None:
    super().__init__(reason)
    self.status = status
    self.reason = reason
    self.retry_after = retry_after
