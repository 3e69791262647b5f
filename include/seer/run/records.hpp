// SPDX-License-Identifier: Apache-2.0
// The records of a run: the figures of its updates in run_dir/metrics.jsonl, in TensorBoard's event file (the same
// values) and in the progress line; and its messages in run_dir/traffic.json. Keys: docs/watching.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/method/method.hpp"
#include "seer/train/phases.hpp"

namespace seer::run {

/// A file that only grows, record by record. Each record is there whole or not at all.
class AppendFile {
 public:
  /// Opens the file, or makes it. Error(file), here and below; its text ends with `remedy`.
  AppendFile(std::string path, std::string remedy);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  const std::string& path() const { return path_; }
  /// A failed write is cut off again, so that the next record does not follow half of one.
  void append(std::string_view record);

 private:
  [[noreturn]] void fail(const char* doing, int reason) const;
  std::string path_, remedy_;
  int descriptor_;
};

/// One logged update. Times and rates are means over the updates since the previous logged one.
struct UpdateRecord {
  std::int64_t update = 0;  ///< completed updates, so the first is 1
  double loss = 0;          ///< mean over ranks
  double lr = 0;            ///< used by this update
  double images_per_s = 0;  ///< all ranks together
  train::PhaseTimes times;
  double images_per_wh = 0;                ///< since the record before; 0: unknown
  double grad_norm = 0;                    ///< of the averaged gradient of all parameters, before LARS
  double loss_scale = 1;                   ///< used by this update; 1 without loss scaling
  std::int64_t host_bytes = 0;             ///< largest resident memory of a rank
  std::int64_t device_bytes = 0;           ///< most device memory that a rank holds (host build: 0)
  std::string method;                      ///< kind of method
  std::vector<method::Figure> figures;     ///< of the method
  std::int64_t bad_images = 0;             ///< replaced since this start, all ranks
  std::int64_t skipped = 0;                ///< updates skipped since this start, for any reason
  std::vector<method::Figure> evaluation;  ///< of the network after this update ([watch]); names begin with "watch_"
  double epoch = 0;                        ///< images seen over images of the data set
  double eta_s = 0;                        ///< negative: unknown
};

/// A test of the network after `update` updates. A line of its own.
struct TestRecord {
  std::int64_t update = 0;
  std::vector<method::Figure> figures;
};
/// "test after 120 updates: test_top1 83.21, ..."
std::string to_text(const TestRecord& record);

struct Scalar {
  std::string name;
  double value;
  bool integer = false;
  bool of_method = false;
};

/// The record as names and values, in the order of the file: the only list of keys, which all writers use.
std::vector<Scalar> scalars(const UpdateRecord& record);

/// "update 120/4000  loss 3.2012  lr 0.2910  412.1 images/s  eta 0:12:31"; bad and skipped counts follow where not 0.
std::string progress_line(const UpdateRecord& record, std::int64_t total_updates);

/// "1:02:03"; "-" for a negative or non-finite number of seconds.
std::string format_duration(double seconds);

/// metrics.jsonl: one JSON object per line, each by a single write: a killed run tears at most the last. Root only.
class Metrics {
 public:
  /// `run_dir` exists. `resumed_update`: completed updates of the checkpoint that the run continues, 0 for a new run.
  /// First drops lines of later updates and lines that do not parse (through a temporary file and rename), so the file
  /// never has an update twice. Error(file).
  Metrics(const std::string& run_dir, std::int64_t resumed_update);

  /// Non-finite values become null. Error(file), e.g. no space left; then no part of the line is in the file.
  void write(const UpdateRecord& record);
  void write(const TestRecord& record);
  const std::string& path() const { return file_.path(); }
  /// Whether the file had a test after this many updates when it was opened: a complete run that is started again.
  bool has_test(std::int64_t update) const { return tests_.contains(update); }

 private:
  std::set<std::int64_t> tests_;
  AppendFile file_;
};

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4); that of "123456789" is 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);
/// The form in TFRecords, which keeps a CRC of data with CRCs in it useful: rotated right by 15 bits, plus 0xa282ead8.
std::uint32_t masked_crc32c(std::string_view bytes);

/// A TensorBoard event file: a sequence of TFRecords, each with one serialised Event (src/run/event.proto). A TFRecord
/// is uint64 length, masked CRC32C of these 8 bytes, the bytes, masked CRC32C of the bytes; all little-endian.
/// run_dir/events.out.tfevents.<seconds>.<host>: a new file for each start of a run. Root rank only.
class EventFile {
 public:
  /// Tells TensorBoard where this run begins: it hides later points that a killed run left in older files. Error(file).
  EventFile(const std::string& run_dir, std::int64_t resumed_update);

  /// Writes all scalars of the record except `update`, which is the step. Tags are grouped as "train/...", "time/..."
  /// and so on. Error(file); then no part of the record is in the file.
  void write(const UpdateRecord& record);
  /// The same, with tags "test/...".
  void write(const TestRecord& record);
  const std::string& path() const { return file_.path(); }

 private:
  void append(const std::string& event);
  AppendFile file_;
};

/// The messages of a run's collectives, as comm::Traffic counts them, separately for updates, set-up, checkpoints and
/// evaluations.
class TrafficLedger {
 public:
  enum class Use : std::uint8_t { set_up, update, checkpoint, evaluation };
  struct Row {
    Use use;
    comm::Traffic traffic;
  };

  /// `counters` returns the counts of all communicators so far, with no work in progress (Learner::traffic).
  explicit TrafficLedger(std::function<std::vector<comm::Traffic>()> counters) : counters_(std::move(counters)) {}

  /// Attributes all counts since the last call to `use`.
  void close(Use use);
  /// Sums by use, communicator and kind, in this order.
  std::vector<Row> rows() const {
    std::vector<Row> out;
    for (const auto& [key, sum] : sums_) out.push_back({key.first, sum});
    return out;
  }

 private:
  using Counter = std::pair<std::string, std::string>;  ///< communicator, kind
  std::function<std::vector<comm::Traffic>()> counters_;
  std::map<Counter, comm::Traffic> seen_;
  std::map<std::pair<Use, Counter>, comm::Traffic> sums_;
};

/// The table beside that of the phases: calls and MiB per update. "" if nothing was sent.
std::string to_table(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates);

/// traffic.json (docs/formats.md). `logged`: number of logged updates; their messages are longer.
std::string to_json(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates, std::int64_t logged, int ranks);

}  // namespace seer::run
