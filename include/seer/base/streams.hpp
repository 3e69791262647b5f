// SPDX-License-Identifier: Apache-2.0
// The files of this process: the limit on open ones, and its standard streams. The program goes on when the streams
// fail: a reader that ends (`| head`), a closed terminal, a full disk.
#pragma once

#include <cstddef>
#include <string>

namespace seer {

/// Raises the soft limit to the hard limit. Called once, at the start. If that fails, the limit stays as it is.
void raise_open_file_limit();

/// Number of files that may still be opened now.
std::size_t spare_open_files();

/// Returns what to do about "Too many open files" if the error's text says so; else "".
std::string open_files_remedy(const std::string& error);

}  // namespace seer

namespace seer::streams {

/// Call first in main(). Drops output that cannot be written to standard output, so callers need not check. Ignores
/// SIGPIPE and SIGXFSZ, so a write fails instead. Opens a closed stream on /dev/null; otherwise the first file that the
/// program opens would get the stream's number, and the text meant for the stream.
void secure();

/// Flushes standard output. Returns errno of the first write to it that failed, or 0.
int output_error();

}  // namespace seer::streams
