// SPDX-License-Identifier: Apache-2.0
// Standard input, output and error of this process. The program goes on when they fail: a reader that ends (`| head`),
// a closed terminal, a full disk.
#pragma once

namespace seer::streams {

/// Call first in main(). Drops output that cannot be written to standard output, so callers need not check. Ignores
/// SIGPIPE and SIGXFSZ, so a write fails instead. Opens a closed stream on /dev/null; otherwise the first file that the
/// program opens would get the stream's number, and the text meant for the stream.
void secure();

/// Flushes standard output. Returns errno of the first write to it that failed, or 0.
int output_error();

}  // namespace seer::streams
