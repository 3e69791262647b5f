// SPDX-License-Identifier: Apache-2.0
// Writes one line per event to the terminal and, once a run folder exists, to its log.txt. Only rank 0 writes; other
// ranks write only through error().
#pragma once

#include <string>
#include <vector>

namespace seer::log {

/// Called once when the ranks are known. Before that, every call behaves as rank 0 of 1.
void start(int rank, int ranks);
/// From now on, warnings, information and progress go to standard error. For commands that print a JSON object to
/// standard output.
void to_standard_error();
/// Also appends to this file (rank 0 only; other ranks ignore the call).
void to_file(const std::string& path);

void info(const std::string& text);
/// Prints each warning once, and counts repetitions for the closing summary (warnings()).
void warn(const std::string& text);
/// On any rank, writes "error: rank 3/8 on host: text" to stderr in a single write(2).
void error(const std::string& text);
/// All warnings so far, each with its count, oldest first (rank 0).
std::vector<std::string> warnings();

/// Shows progress: on a terminal as one live line that overwrites itself, otherwise as a plain line at most every
/// `plain_interval_s`. finish_progress() ends the live line.
void progress(const std::string& text, double plain_interval_s = 10);
void finish_progress();

int rank();
int ranks();
std::string host_name();

}  // namespace seer::log
