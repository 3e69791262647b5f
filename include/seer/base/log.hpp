// SPDX-License-Identifier: Apache-2.0
// One line an event, to the terminal and, once a run folder exists, to its log.txt. Rank 0 speaks; others are silent
// except through error().
#pragma once

#include <string>
#include <vector>

namespace seer::log {

/// Called once after the ranks are known. Before it, every call behaves as rank 0 of 1.
void start(int rank, int ranks);
/// Warnings, information and progress go to standard error from now on, where standard output holds a JSON object.
void to_standard_error();
/// Appends to this file too (rank 0 only; other ranks ignore it).
void to_file(const std::string& path);

void info(const std::string& text);
/// Counted, and repeated in the closing summary (warnings()).
void warn(const std::string& text);
/// From any rank: "error: rank 3/8 on host: text" in a single write(2) to stderr.
void error(const std::string& text);
/// All warnings so far, each with its count, oldest first (rank 0).
std::vector<std::string> warnings();

/// A live progress line: overwrites itself on a terminal, becomes a plain line at most every `plain_interval_s`
/// otherwise. finish_progress() ends the live line.
void progress(const std::string& text, double plain_interval_s = 10);
void finish_progress();

int rank();
int ranks();
std::string host_name();

}  // namespace seer::log
