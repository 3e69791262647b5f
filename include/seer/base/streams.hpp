// SPDX-License-Identifier: Apache-2.0
// Standard input, output and error of this process. Whatever becomes of them, the work goes on: a reader that ends
// (`| head`), a terminal that is gone, a full disk.
#pragma once

namespace seer::streams {

/// The first thing in main(). What cannot be written to standard output is dropped, so no caller need look. SIGPIPE and
/// SIGXFSZ are ignored: a write fails instead. A stream that was closed is opened on /dev/null, or the first file that
/// the program opens would get its number, and the text meant for the stream.
void secure();

/// Flushes standard output. errno of the first write to it that failed; 0: none did.
int output_error();

}  // namespace seer::streams
