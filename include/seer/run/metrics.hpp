// SPDX-License-Identifier: Apache-2.0
// Writes the figures of an update: run_dir/metrics.jsonl and the progress line. TensorBoard's event file gets the same
// values (run/tensorboard.hpp). Keys: docs/watching.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/method/method.hpp"
#include "seer/run/append_file.hpp"
#include "seer/train/phases.hpp"

namespace seer::run {

/// One logged update. Times and rates are means over the updates since the previous logged one.
struct UpdateRecord {
  std::int64_t update = 0;  ///< completed updates, so the first is 1
  double loss = 0;          ///< mean over ranks
  double lr = 0;            ///< used by this update
  double images_per_s = 0;  ///< all ranks together
  double step_ms = 0;       ///< wall time of an update, everything included
  double data_wait_ms = 0, forward_ms = 0, loss_ms = 0, backward_ms = 0, reduce_ms = 0, optimizer_ms = 0,
         bn_sync_ms = 0, gather_ms = 0, hidden_ms = 0;
  double grad_norm = 0;                 ///< of the averaged gradient of all parameters, before LARS
  double loss_scale = 1;                ///< used by this update; 1 without loss scaling
  std::int64_t host_bytes = 0;          ///< largest resident memory of a rank
  std::int64_t device_bytes = 0;        ///< most device memory that a rank holds (host build: 0)
  std::string method;                   ///< kind of method
  std::vector<method::Figure> figures;  ///< of the method
  std::int64_t bad_images = 0;          ///< replaced since this start, all ranks
  std::int64_t skipped = 0;             ///< updates skipped since this start, for any reason
  double epoch = 0;                     ///< images seen over images of the data set
  double eta_s = 0;                     ///< negative: unknown
};

/// Fills in the times: step_ms and every <phase>_ms of the record.
void fill(UpdateRecord& record, const train::PhaseTimes& times);

struct Scalar {
  std::string name;
  double value;
  bool integer = false;
  bool of_method = false;
};

/// The record as names and values, in the order of the file. This is the only list of keys: all writers of records use
/// it.
std::vector<Scalar> scalars(const UpdateRecord& record);

/// "update 120/4000  loss 3.2012  lr 0.2910  412.1 images/s  eta 0:12:31"; bad and skipped counts follow where not 0.
std::string progress_line(const UpdateRecord& record, std::int64_t total_updates);

/// "1:02:03"; "-" for a negative or non-finite number of seconds.
std::string format_duration(double seconds);

/// metrics.jsonl: one JSON object per line. Each line is appended with a single write, so a killed run tears at most
/// its last line. Root rank only.
class Metrics {
 public:
  /// `run_dir` exists. `resumed_update`: completed updates of the checkpoint that the run continues, 0 for a new run.
  /// First drops lines of later updates and lines that do not parse (through a temporary file and rename), so the file
  /// never has an update twice. Error(file).
  Metrics(const std::string& run_dir, std::int64_t resumed_update);

  /// Non-finite values become null. Error(file), e.g. no space left; then no part of the line is in the file.
  void write(const UpdateRecord& record);
  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace seer::run
