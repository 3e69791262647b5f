// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <numeric>
#include <utility>

#include "record.hpp"
#include "seer/base/error.hpp"

namespace seer::comm {

void check(int status, const char* call, std::source_location where) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw Error(ExitCode::device, fmt::format("{}: {}", call, std::string(text, static_cast<std::size_t>(length))), "",
              where);
}

namespace {

MPI_Op mpi_op(Op op) {
  return op == Op::sum ? MPI_SUM : op == Op::max ? MPI_MAX : MPI_MIN;
}

void check_groups(int ranks, int group_size) {
  if (group_size >= 1 && ranks % group_size == 0) return;
  throw Error(ExitCode::input, fmt::format("{} ranks cannot be divided into groups of {}", ranks, group_size),
              "use a group size that divides the number of ranks")
      .as_agreed();
}

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) {
  int provided = 0;
  check(MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
}

MpiSession::~MpiSession() {
  MPI_Finalize();
}

Communicator::Record::~Record() {
  if (trace != nullptr) release(trace);
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (comm != MPI_COMM_NULL && finalized == 0) MPI_Comm_free(&comm);
}

Communicator::Communicator(MPI_Comm comm, std::string name) : comm_(comm), record_(std::make_shared<Record>()) {
  record_->comm = comm;
  record_->name = std::move(name);
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  if (size_ == 1) return;
  record_->trace = trace_of(comm_);
  rename(record_->trace, record_->name);
}

Communicator Communicator::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return Communicator(comm, "world");
}

Communicator Communicator::named(std::string name) && {
  record_->name = std::move(name);
  if (record_->trace != nullptr) rename(record_->trace, record_->name);
  return std::move(*this);
}

bool Communicator::only_plans(Kind kind, std::size_t bytes) const {
  if (size_ > 1) {
    auto& of_kind = record_->kinds[static_cast<std::size_t>(kind)];
    of_kind.calls += 1;
    of_kind.bytes += static_cast<std::int64_t>(bytes);
  }
  if (ledger() == nullptr) return false;
  ledger()->message({record_->name, kind, size_, record_->node_ranks, static_cast<double>(bytes)});
  return true;
}

std::optional<Mark> Communicator::enter(Kind kind, std::size_t bytes) const {
  if (only_plans(kind, bytes)) return std::nullopt;
  return std::optional<Mark>(std::in_place, record_->trace, name_of(kind), bytes);
}

device::Ledger* Communicator::ledger() const {
  return record_ ? record_->ledger : nullptr;
}

std::int64_t Communicator::staging_bytes() const {
  if (!record_) return 0;
  return static_cast<std::int64_t>(ledger() != nullptr ? record_->planned_staging : record_->staging.size());
}

Communicator Communicator::planned(int ranks, int ranks_per_node, device::Ledger& ledger) {
  Communicator out;
  out.size_ = ranks;
  out.record_ = std::make_shared<Record>();
  out.record_->name = "world";
  out.record_->ledger = &ledger;
  out.record_->node_ranks = std::min(ranks, ranks_per_node);
  return out;
}

Communicator Communicator::planned_part(int size, int node_ranks) const {
  return planned(size, node_ranks, *ledger()).named("part");
}

const char* name_of(device::Message::Kind kind) {
  constexpr const char* names[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier"};
  return names[static_cast<std::size_t>(kind)];
}

std::vector<Traffic> Communicator::traffic() const {
  std::vector<Traffic> out;
  if (!record_) return out;
  for (std::size_t k = 0; k < record_->kinds.size(); ++k) {
    const auto& of_kind = record_->kinds[k];
    if (of_kind.calls == 0) continue;
    out.push_back({record_->name, name_of(static_cast<Kind>(k)), size_, of_kind.calls, of_kind.bytes});
  }
  return out;
}

Communicator Communicator::split(int color) const {
  ensure(ledger() == nullptr, "split() of a planned communicator: the colors of other ranks are not known");
  const Mark mark(record_->trace, "split", 0);
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split(comm_, color, rank_, &comm), "MPI_Comm_split");
  return Communicator(comm);
}

Communicator Communicator::split_groups(int group_size) const {
  check_groups(size_, group_size);
  if (ledger() != nullptr) return planned_part(group_size, record_->node_ranks);
  return split(rank_ / group_size);
}

Communicator Communicator::split_across(int group_size) const {
  check_groups(size_, group_size);
  if (ledger() != nullptr) return planned_part(size_ / group_size, std::max(1, record_->node_ranks / group_size));
  return split(rank_ % group_size);
}

Communicator Communicator::duplicate() const {
  return ledger() != nullptr ? planned_part(size_, record_->node_ranks) : split(0);
}

Communicator Communicator::node() const {
  if (ledger() != nullptr) return planned_part(record_->node_ranks, record_->node_ranks);
  const Mark mark(record_->trace, "split", 0);
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &comm), "MPI_Comm_split_type");
  return Communicator(comm);
}

void Communicator::barrier() const {
  const auto mark = enter(Kind::barrier, 0);
  if (mark) check(MPI_Barrier(comm_), "MPI_Barrier");
}

// Long messages go in pieces: MPI 3 counts in ints, and Open MPI makes a copy of what it sums.
template <class T>
void Communicator::all_reduce_pieces(std::span<T> values, MPI_Datatype type, Op op) const {
  const auto mark = enter(Kind::all_reduce, values.size_bytes());
  if (!mark) return;
  expect_host(values.data());
  constexpr std::size_t kPiece = kStagingBytes / sizeof(T);
  for (std::size_t at = 0; at < values.size(); at += kPiece) {
    const auto count = static_cast<int>(std::min(kPiece, values.size() - at));
    check(MPI_Allreduce(MPI_IN_PLACE, values.data() + at, count, type, mpi_op(op), comm_), "MPI_Allreduce");
  }
}
void Communicator::all_reduce(std::span<float> values, Op op) const {
  all_reduce_pieces(values, MPI_FLOAT, op);
}
void Communicator::all_reduce(std::span<double> values, Op op) const {
  all_reduce_pieces(values, MPI_DOUBLE, op);
}
void Communicator::all_reduce(std::span<std::int64_t> values, Op op) const {
  all_reduce_pieces(values, MPI_INT64_T, op);
}

void Communicator::broadcast(void* data, std::size_t bytes, int root) const {
  const auto mark = enter(Kind::broadcast, bytes);
  if (!mark) return;
  expect_host(data);
  constexpr std::size_t kPiece = std::size_t{1} << 30;  // MPI 3 counts in ints
  for (std::size_t at = 0; at < bytes; at += kPiece) {
    const auto count = static_cast<int>(std::min(kPiece, bytes - at));
    check(MPI_Bcast(static_cast<char*>(data) + at, count, MPI_BYTE, root, comm_), "MPI_Bcast");
  }
}

void Communicator::broadcast(std::string& text, int root) const {
  std::int64_t length = static_cast<std::int64_t>(text.size());
  broadcast(&length, sizeof length, root);
  text.resize(static_cast<std::size_t>(length));
  broadcast(text.data(), text.size(), root);
}

std::vector<std::string> Communicator::all_gather(const std::string& mine) const {
  const auto lengths = all_gather(static_cast<std::int64_t>(mine.size()));
  const auto total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  ensure(total <= INT_MAX, "all_gather of more than 2 GiB");
  const auto mark = enter(Kind::all_gather, static_cast<std::size_t>(total));
  if (!mark) return std::vector(lengths.size(), mine);
  const std::vector<int> counts(lengths.begin(), lengths.end());
  std::vector<int> places(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), places.begin(), 0);
  std::string all(static_cast<std::size_t>(total), '\0');
  check(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(), places.data(),
                       MPI_BYTE, comm_),
        "MPI_Allgatherv");
  std::vector<std::string> out;
  for (std::size_t r = 0; r < counts.size(); ++r)
    out.push_back(all.substr(static_cast<std::size_t>(places[r]), static_cast<std::size_t>(counts[r])));
  return out;
}

void Communicator::all_gather(std::span<const float> mine, std::span<float> out) const {
  ensure(out.size() == mine.size() * static_cast<std::size_t>(size_), "all_gather: output of another size");
  ensure(mine.size() <= INT_MAX, "all_gather of more elements than MPI 3 can count");
  const auto mark = enter(Kind::all_gather, out.size_bytes());
  if (!mark) return;
  expect_host(mine.data());
  expect_host(out.data());
  const auto count = static_cast<int>(mine.size());
  check(MPI_Allgather(mine.data(), count, MPI_FLOAT, out.data(), count, MPI_FLOAT, comm_), "MPI_Allgather");
}

std::vector<std::int64_t> Communicator::all_gather(std::int64_t mine) const {
  std::vector<std::int64_t> out(static_cast<std::size_t>(size_), mine);
  const auto mark = enter(Kind::all_gather, out.size() * sizeof out[0]);
  if (mark) check(MPI_Allgather(&mine, 1, MPI_INT64_T, out.data(), 1, MPI_INT64_T, comm_), "MPI_Allgather");
  return out;
}

}  // namespace seer::comm
